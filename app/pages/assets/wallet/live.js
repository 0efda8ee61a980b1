// Keeps a wallet live: reads it, follows its changes, and after every interruption goes on from the last one it has.

import { createClient } from "../graphql-ws/client.js";
import { FOLLOW, OLDER_CODES, OLDER_ENTRIES, READ, VERSION, Wallet } from "./wallet.js";

const ANSWER_MILLISECONDS_MAX = 10_000;
const PING_MILLISECONDS = 10_000;
const PONG_MILLISECONDS_MAX = 5_000;
const WAIT_SECONDS_MAX = 30;

// The wallet can't be opened with this token, or not any longer.
export class TokenError extends Error {}

export class Live {
  #stopping = new AbortController();
  #hurry = () => {};
  #interrupt = () => {};
  #tries = 0;

  // `wallet` is one to go on from. Calls `onState({ is, seconds })`, `onRead(wallet)` and `onChange(change, wallet)`.
  constructor(token, wallet, { onState, onRead, onChange }) {
    this.token = token;
    this.wallet = wallet;
    this.onState = onState;
    this.onRead = onRead;
    this.onChange = onChange;
  }

  // Runs until `stop`. Throws TokenError.
  async run() {
    const { signal } = this.#stopping;
    // A header couldn't carry it.
    if (!/^[!-~]+$/.test(this.token)) throw invalid();
    addEventListener("online", () => this.retry(), { signal });
    // A network that is gone closes no socket: without this a minute could pass before anybody notices.
    addEventListener("offline", () => this.#interrupt(), { signal });
    while (!signal.aborted) {
      // Between two waits nothing has changed.
      this.onState(this.#tries === 0 ? { is: "connecting" } : { is: "offline", seconds: 0 });
      try {
        if (!this.wallet) {
          const read = await this.ask(READ);
          if (read.wallet === null) throw ofKey();
          this.wallet = new Wallet(read);
          this.onRead(this.wallet);
        }
        await this.#follow();
      } catch (problem) {
        if (signal.aborted) return;
        if (problem instanceof TokenError) throw problem;
        if (mustReadAnew(problem)) this.wallet = null;
        else await this.#wait();
      }
    }
  }

  stop() {
    this.#stopping.abort();
    this.#interrupt();
    this.#hurry();
  }

  // Ends a wait.
  retry() {
    this.#hurry();
  }

  // Reads one more page of codes.
  async readOlderCodes() {
    const { wallet } = await this.ask(OLDER_CODES, { after: this.wallet.codesAfter });
    this.wallet.addOlderCodes(wallet.codes);
  }

  // Reads one more page of entries.
  async readOlderEntries() {
    const { wallet } = await this.ask(OLDER_ENTRIES, { after: this.wallet.entriesAfter });
    this.wallet.addOlderEntries(wallet.entries);
  }

  // Returns the data of an answer. Throws TokenError, or another one when no answer came.
  async ask(query, variables = {}) {
    const response = await fetch("/graphql", {
      method: "POST",
      headers: { authorization: `Bearer ${this.token}`, "content-type": "application/json" },
      body: JSON.stringify({ query, variables }),
      signal: AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(ANSWER_MILLISECONDS_MAX)]),
    });
    const { data, errors } = await response.json();
    if (errors) throw ofToken(errors) ?? new Error(errors[0].message);
    return data;
  }

  // Follows the wallet until something ends that, and throws what it was.
  #follow() {
    return new Promise((_, reject) => {
      let silence;
      const client = createClient({
        url: new URL("/graphql", location.href.replace(/^http/, "ws")).href,
        connectionParams: { authorization: `Bearer ${this.token}` },
        // Its own retries would ask for the same `after` again.
        retryAttempts: 0,
        keepAlive: PING_MILLISECONDS,
        on: {
          ping: (received) => {
            if (!received) silence = setTimeout(() => client.terminate(), PONG_MILLISECONDS_MAX);
          },
          pong: (received) => {
            if (received) clearTimeout(silence);
          },
          closed: () => clearTimeout(silence),
        },
      });
      this.#interrupt = () => client.terminate();
      const fail = (problem) => {
        client.dispose();
        reject(ofToken(problem) ?? problem);
      };
      const live = () => {
        this.#tries = 0;
        this.onState({ is: "live" });
      };
      client.subscribe(
        { query: FOLLOW, variables: { after: this.wallet.version } },
        {
          next: ({ data }) => {
            if (this.wallet.apply(data.walletChanged)) this.onChange(data.walletChanged, this.wallet);
          },
          error: fail,
          complete: () => reject(new Error("The server ended the subscription.")),
        },
      );
      // A server can open a socket while its database is away. An answer says that it follows.
      client.subscribe({ query: VERSION }, { next: ({ errors }) => (errors ? fail(errors) : live()), error: fail, complete() {} });
    });
  }

  // Waits longer each time, and each page a little differently, so that a restarted server isn't met by all at once.
  async #wait() {
    const most = Math.min(2 ** this.#tries, WAIT_SECONDS_MAX);
    this.#tries += 1;
    let hurried = false;
    for (let seconds = Math.ceil(most * (0.5 + Math.random() / 2)); seconds > 0 && !hurried; seconds -= 1) {
      this.onState({ is: "offline", seconds });
      hurried = await new Promise((resolve) => {
        const second = setTimeout(() => resolve(false), 1000);
        this.#hurry = () => {
          clearTimeout(second);
          resolve(true);
        };
      });
    }
  }
}

// Errors of an operation are a list; a socket that closed is one thing with a numeric code.
function codeOf(problem) {
  return Array.isArray(problem) ? problem[0].extensions?.code : problem.code;
}

function mustReadAnew(problem) {
  return ["VERSION_UNKNOWN", "HISTORY_GONE"].includes(codeOf(problem));
}

function invalid() {
  return new TokenError("This token is not valid, or not any longer. Open the wallet with a fresh one.");
}

function ofKey() {
  return new TokenError("This is a key for programs. A wallet opens with a member’s token.");
}

function ofToken(problem) {
  switch (codeOf(problem)) {
    case "UNAUTHENTICATED":
    case 4401:
    case 4403:
      return invalid();
    case "FORBIDDEN":
      return ofKey();
    default:
      return null;
  }
}
