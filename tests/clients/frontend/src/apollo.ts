import { ApolloClient, HttpLink, InMemoryCache, type PossibleTypesMap } from "@apollo/client";
import { SetContextLink } from "@apollo/client/link/context";
import { relayStylePagination } from "@apollo/client/utilities";

export function createApollo(url: string, credential: () => Promise<string>, possibleTypes: PossibleTypesMap): ApolloClient {
  const withCredential = new SetContextLink(async ({ headers }) => ({
    headers: { ...headers, authorization: `Bearer ${await credential()}` },
  }));
  return new ApolloClient({
    cache: new InMemoryCache({
      // Or `... on Refusal` matches nothing in the cache.
      possibleTypes,
      // Pages that were fetched with `after` join the list; lists with other arguments are other lists.
      typePolicies: { Wallet: { fields: { codes: relayStylePagination(["state"]) } } },
    }),
    link: withCredential.concat(new HttpLink({ uri: url })),
  });
}
