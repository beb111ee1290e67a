// What a person can mend: said in one line, without a stack.

export class CreateError extends Error {
  override readonly name = 'CreateError';
  readonly exitCode: number;

  constructor(message: string, exitCode = 1, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.exitCode = exitCode;
  }
}
