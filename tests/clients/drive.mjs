// Runs one of the guide's clients for a test: prints what it is told as lines of JSON, until it is stopped.
import WebSocket from "ws";

import { createWalletClient, followWallet as followWithApollo, WALLET } from "./apollo_wallet.mjs";
import { followWallet } from "./follow_wallet.mjs";

// When a connection fails, Apollo's link looks at the global one, which Node 20 doesn't have.
globalThis.WebSocket ??= WebSocket;

const { name, url, shop, key, issue } = JSON.parse(process.argv[2]);
// The shop's own server, which has a key, asks for the member's token.
const freshToken = async () => {
  const response = await fetch(shop, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify(issue),
  });
  return (await response.json()).data.answer.token;
};
const tell = (version, type, codes) => {
  const states = Object.fromEntries([...codes].map(({ text, state }) => [text, state]));
  console.log(JSON.stringify({ version, type, states }));
};

if (name === "graphql-ws") {
  await followWallet({
    url: url.replace(/^http/, "ws"),
    freshToken,
    webSocketImpl: WebSocket,
    onWallet: ({ version, codes }) => tell(version, null, codes.values()),
    onChange: ({ version, event }, { codes }) => tell(version, event.type, codes.values()),
  });
} else {
  const client = createWalletClient({ url, freshToken, webSocketImpl: WebSocket });
  const shown = ({ wallet }) => wallet.codes.edges.map(({ node }) => node);
  client.query({ query: WALLET }).then(({ data }) => tell(data.wallet.version, null, shown(data)));
  await followWithApollo(client, {
    onChange: ({ version, event }) => tell(version, event.type, shown(client.readQuery({ query: WALLET }))),
  });
}
