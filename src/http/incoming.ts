/** Incoming: an answer as a transport gives it, before anything of it is checked. */
export interface Incoming {
  readonly status: number;
  readonly headers: Headers;
  /** False for answers that never have a body, such as those to HEAD. */
  readonly hasBody: boolean;
  /**
   * Gives each piece of the body to `take`, which may throw. Resolves at the end of the body.
   * Called at most once. Rejects with the reason of an abort, or as the connection ends.
   */
  read(take: (piece: Uint8Array) => void): Promise<void>;
}

/** One request as a transport sends it. Nothing is followed, decoded or made again. */
export interface Outgoing {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string | undefined;
  /** Ends the request and its answer. */
  readonly signal: AbortSignal;
}
