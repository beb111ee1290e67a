// Takes secrets out of text that people will read: log lines, start-up banners, lists of faults.
// It hides what looks like a secret. A setting whose kind is a secret is never printed at all.

const hidden = '***';

/** `scheme://user:password@`, also when the password itself holds an `@`. */
const urlPassword = /(\b[a-z][a-z0-9+.-]*:\/\/[^\s:@/"'\\]*):[^\s/"'\\]*@/gi;

/** Query parameters that carry credentials. */
const queryCredential = /([?&](?:token|access_token|password|api_key|sslpassword)=)[^&\s"'\\#]+/gi;

const bearer = /\b(bearer[ .])[A-Za-z0-9._~+/=-]{4,}/gi;

/** The text without the credentials that URLs and `Bearer` headers in it carry. */
export function redactText(text: string): string {
  return text
    .replace(urlPassword, `$1:${hidden}@`)
    .replace(queryCredential, `$1${hidden}`)
    .replace(bearer, `$1${hidden}`);
}

/** A URL that may be shown. A text that is not a URL is hidden whole: it may hold a password anywhere. */
export function redactUrl(url: string): string {
  if (!URL.canParse(url)) return hidden;
  const parsed = new URL(url);
  if (parsed.password !== '') parsed.password = hidden;
  return redactText(parsed.href);
}
