// Headers of every answer that is not a page. They tell browsers to believe its content type, to run nothing in it, and to
// show it in no frame. No page of another origin may load it as an image or a script. Pages have headers of their own.

export const answerHeaders: Readonly<Record<string, string>> = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
};
