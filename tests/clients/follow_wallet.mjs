import { createClient } from "graphql-ws";

const CODE = "id masked text state expiresAt redeemedAt pool { name }";
const READ = `query ($page: String) {
  wallet { version codes(first: 100, after: $page) { edges { node { ${CODE} } } pageInfo { hasNextPage endCursor } } }
}`;
const FOLLOW = `subscription ($after: Int) {
  walletChanged(after: $after) { version event { id type occurredAt } code { ${CODE} } }
}`;

const GONE = ["HISTORY_GONE", "VERSION_UNKNOWN"];

// `freshToken` asks your server for a member token. Node 20 needs `webSocketImpl` (the package ws), browsers don't.
export async function followWallet({ url, freshToken, onWallet, onChange, webSocketImpl }) {
  let silence;
  const client = createClient({
    url,
    webSocketImpl,
    // Asked on every connect: after a token's end (4403) the next connection has a fresh one.
    connectionParams: async () => ({ authorization: `Bearer ${await freshToken()}` }),
    retryAttempts: Infinity,
    // A network that is away fails with an event that isn't a close; unless told, those are not retried.
    shouldRetry: () => true,
    lazyCloseTimeout: 5_000,
    // A network that is gone closes nothing, so silence has to be noticed here.
    keepAlive: 10_000,
    on: {
      ping: (received) => {
        if (!received) silence = setTimeout(() => client.terminate(), 5_000);
      },
      pong: (received) => {
        if (received) clearTimeout(silence);
      },
      closed: () => clearTimeout(silence),
    },
  });
  let wallet = null;
  for (;;) {
    try {
      if (wallet === null) {
        wallet = await read(client);
        onWallet(wallet);
      }
      // graphql-ws sends the same payload after each reconnect; this one knows by then how far we are.
      const variables = { get after() { return wallet.version; } };
      for await (const { data } of client.iterate({ query: FOLLOW, variables })) {
        const change = data.walletChanged;
        if (change.version <= wallet.version) continue;
        wallet.version = change.version;
        if (change.code) wallet.codes.set(change.code.id, change.code);
        onChange(change, wallet);
      }
    } catch (problem) {
      // A list holds errors of the operation. If the database was away we go on where we were; if the history is gone,
      // only reading anew helps.
      if (!Array.isArray(problem)) throw problem;
      if (problem.some(({ extensions }) => GONE.includes(extensions?.code))) wallet = null;
      await new Promise((resolve) => setTimeout(resolve, 1_000));
    }
  }
}

async function read(client) {
  const wallet = { version: null, codes: new Map() };
  let page = null;
  do {
    const found = await ask(client, { query: READ, variables: { page } });
    // The first page's version is the oldest: what changes while the others are read is replayed.
    wallet.version ??= found.version;
    for (const { node } of found.codes.edges) wallet.codes.set(node.id, node);
    page = found.codes.pageInfo.hasNextPage ? found.codes.pageInfo.endCursor : null;
  } while (page !== null);
  return wallet;
}

async function ask(client, request) {
  for await (const { data, errors } of client.iterate(request)) {
    if (errors) throw errors;
    if (data.wallet === null) throw new Error("An API key has no wallet; use a member's token.");
    return data.wallet;
  }
}
