export async function startRelay(_parts: unknown): Promise<{ sources: object }> {
  return { sources: {} };
}
