// Memory does not depend on what else the machine does, so two servers are measured at the same time.

export async function twoAtOnce<Item>(items: readonly Item[], run: (item: Item) => Promise<void>): Promise<void> {
  const left = items.values();
  const work = async (): Promise<void> => {
    for (const item of left) await run(item);
  };
  await Promise.all([work(), work()]);
}
