// Channel names and data as types: `Sobranie<{ posts: Post; 'chat:*': Message }>` knows what each channel carries.

/** A pattern as the type of the names that it matches: each `*` stands for any text. */
type Matching<Pattern> = Pattern extends `${infer Start}*${infer End}` ? `${Start}${string}${Matching<End>}` : Pattern;

/** The names that may be asked for: all of them where no channels were declared. */
export type ChannelName<Channels> = string extends keyof Channels ? string : Matching<keyof Channels & string>;

/** What a channel carries: its own entry's data, else that of the pattern that matches it. */
export type DataOf<Channels, Name extends string> = string extends keyof Channels
  ? Channels[keyof Channels]
  : Name extends keyof Channels
    ? Channels[Name]
    : { [Pattern in keyof Channels]: Name extends Matching<Pattern> ? Channels[Pattern] : never }[keyof Channels];
