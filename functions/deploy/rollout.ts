/** Shares of the traffic; what has a tag can be reached by it, whatever its share. */
export interface Route {
  revision: string;
  version: string;
  /** Percent. */
  share: number;
  tag: 'champion' | 'candidate' | 'previous';
}

/** What answers now. */
export interface Serving {
  revision: string;
  version: string;
}

/** A synthetic request to one version. */
export type Ask = (
  photo: Uint8Array,
  traceparent: string,
  signal: AbortSignal,
) => Promise<{ status: number; text: string }>;

/**
 * One way to bring a version to the traffic. Every call can be repeated; those that write throw `service-missing` when
 * somebody deleted what they write to.
 */
export interface Rollout {
  /** `false`: the version in champion.json is the traffic, there are no shares. */
  readonly canary: boolean;
  /** Who has the traffic; undefined before the first deployment. */
  serving(model: string): Promise<Serving | undefined>;
  /** A revision of the version that can take traffic at once, if it is still there. */
  find(model: string, version: string): Promise<string | undefined>;
  /** Name of the revision that a version gets. */
  revisionOf(model: string, version: string): Promise<string>;
  /**
   * Makes the revision, without traffic as long as another one serves, and waits until it is ready.
   *
   * @throws DandelionError `revision-failed` with the revision's own reason
   */
  prepare(wanted: {
    model: string;
    version: string;
    revision: string;
    serving: Serving | undefined;
    fence: string;
    /** Called while it waits; throws to end the wait. */
    waiting(note: string): Promise<void>;
  }): Promise<void>;
  /** Sends the traffic, and waits until it goes there. */
  route(routes: readonly Route[], fence: string, waiting: (note: string) => Promise<void>): Promise<void>;
  /** Undefined where there is no server to ask. */
  ask(tag: Route['tag']): Ask | undefined;
  /** Deletes revisions that nobody would go back to. */
  tidy(kept: readonly string[]): Promise<string[]>;
}
