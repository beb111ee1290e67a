// What every answer that is no page tells browsers: take it for nothing else than it says, run nothing in it, frame it
// nowhere, and let no page of another origin load it as if it were an image or a script. Pages have a policy of their own.

export const answerHeaders: Readonly<Record<string, string>> = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
};
