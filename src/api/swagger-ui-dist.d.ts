// Types of dependencies that ship none.

declare module 'swagger-ui-dist' {
  /** The folder that holds the page's assets. */
  export function absolutePath(): string;
}
