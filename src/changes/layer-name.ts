// The name of the sync layer that changes are carried to. The log of a database keeps that of the relay that led at last,
// and each node compares it with its own.

/** Names a layer as no other: nodes of another name hear nothing of this one. */
export interface LayerName {
  /** As last confirmed. */
  readonly current: string;
  /** Asks the layer. `told` is what the log of the node's database has. Rejects when the layer cannot be reached. */
  confirm(told: string | null | undefined): Promise<string>;
}

/** A name that the layer need not be asked for. */
export function fixedLayer(name: string): LayerName {
  return { current: name, confirm: () => Promise.resolve(name) };
}
