// Types of a dependency that ships none.

declare module 'cluster-key-slot' {
  /** The slot of a key or a topic, from 0 to 16,383. Throws for what is no text. */
  function calculateSlot(key: string): number;
  export default calculateSlot;
}
