import { ApolloClient, ApolloLink, CombinedGraphQLErrors, gql, HttpLink, InMemoryCache } from "@apollo/client";
import { SetContextLink } from "@apollo/client/link/context";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { createClient } from "graphql-ws";

const CODE = gql`
  fragment CodeOfWallet on Code { id masked text state expiresAt redeemedAt pool { id name } }
`;
export const WALLET = gql`
  query Wallet { wallet { id version codes(first: 100) { edges { node { ...CodeOfWallet } } } } }
  ${CODE}
`;
const CHANGES = gql`
  subscription Changes($after: Int) {
    walletChanged(after: $after) {
      version wallet { id version } event { id type occurredAt } code { ...CodeOfWallet }
    }
  }
  ${CODE}
`;

export function createWalletClient({ url, freshToken, webSocketImpl }) {
  const authorization = async () => `Bearer ${await freshToken()}`;
  const socket = createClient({
    url: url.replace(/^http/, "ws"),
    webSocketImpl,
    connectionParams: async () => ({ authorization: await authorization() }),
    // Its own retries would ask for the same `after` again; followWallet subscribes anew.
    retryAttempts: 0,
  });
  const withToken = new SetContextLink(async ({ headers }) => ({
    headers: { ...headers, authorization: await authorization() },
  }));
  return new ApolloClient({
    cache: new InMemoryCache(),
    link: ApolloLink.split(
      ({ operationType }) => operationType === "subscription",
      new GraphQLWsLink(socket),
      withToken.concat(new HttpLink({ uri: url })),
    ),
  });
}

// Keeps the cache's wallet live: every query that shows it, or one of its codes, is told.
export async function followWallet(client, { onChange = () => {} } = {}) {
  let seconds = 1;
  for (;;) {
    try {
      // From the cache once it is there: its version is the last one that was merged.
      const { data } = await client.query({ query: WALLET });
      await follow(client, data.wallet.version, (change) => {
        seconds = 1;
        merge(client.cache, change);
        onChange(change);
      });
    } catch (problem) {
      if (mustReadAnew(problem)) {
        client.cache.evict({ id: "ROOT_QUERY", fieldName: "wallet" });
      } else {
        await new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
        seconds = Math.min(seconds * 2, 30);
      }
    }
  }
}

function follow(client, after, onChange) {
  return new Promise((_, reject) => {
    client.subscribe({ query: CHANGES, variables: { after } }).subscribe({
      next: ({ data, error }) => (error ? reject(error) : onChange(data.walletChanged)),
      error: reject,
      complete: () => reject(new Error("the socket was closed")),
    });
  });
}

// Apollo has merged the wallet's version and the code's state by their ids; a code that is new has to join the list.
function merge(cache, { wallet, code }) {
  if (!code) return;
  cache.modify({
    id: cache.identify(wallet),
    fields: {
      codes(existing, { readField, toReference }) {
        if (existing.edges.some(({ node }) => readField("id", node) === code.id)) return existing;
        const edge = { __typename: "CodeEdge", node: toReference(cache.identify(code)) };
        return { ...existing, edges: [edge, ...existing.edges] };
      },
    },
  });
}

function mustReadAnew(problem) {
  const codes = CombinedGraphQLErrors.is(problem) ? problem.errors.map(({ extensions }) => extensions?.code) : [];
  return codes.includes("VERSION_UNKNOWN") || codes.includes("HISTORY_GONE");
}
