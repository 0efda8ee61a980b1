// Asks twice by hash with Apollo's own link, and prints what was sent and what came back.
import { createHash } from "node:crypto";
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { PersistedQueryLink } from "@apollo/client/link/persisted-queries";

const { url, key, query } = JSON.parse(process.argv[2]);
const sent = [];
const client = new ApolloClient({
  cache: new InMemoryCache(),
  link: ApolloLink.from([
    new PersistedQueryLink({ sha256: (text) => createHash("sha256").update(text).digest("hex") }),
    new HttpLink({
      uri: url,
      headers: { authorization: `Bearer ${key}` },
      fetch: (address, init) => {
        sent.push(Object.keys(JSON.parse(init.body)).includes("query"));
        return fetch(address, init);
      },
    }),
  ]),
});
const answers = [];
for (let round = 0; round < 2; round++) {
  const { data } = await client.query({ query: gql(query), fetchPolicy: "no-cache" });
  answers.push(data);
}
console.log(JSON.stringify({ sent, answers }));
