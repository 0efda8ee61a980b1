// Follows a wallet with graphql-ws until `count` changes have come, and prints them.
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const { url, token, query, after, count } = JSON.parse(process.argv[2]);
const client = createClient({ url, webSocketImpl: WebSocket, connectionParams: { authorization: `Bearer ${token}` }, retryAttempts: 0 });
const changes = [];
for await (const result of client.iterate({ query, variables: { after } })) {
  if (result.errors) throw new Error(JSON.stringify(result.errors));
  changes.push(result.data.walletChanged);
  if (changes.length === count) break;
}
await client.dispose();
console.log(JSON.stringify(changes));
