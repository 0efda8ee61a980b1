// A key in the address's fragment (#key=…) becomes the Authorization header; fragments never reach the server.
const key = new URLSearchParams(location.hash.slice(1)).get("key");
const query = `# Flash: ask who you are. Set the Authorization header below, with a key that \`make up\` printed.
query Viewer {
  viewer {
    role
    merchant { name currency }
  }
}
`;
ReactDOM.createRoot(document.getElementById("graphiql")).render(
  React.createElement(GraphiQL, {
    fetcher: GraphiQL.createFetcher({ url: "/graphql" }),
    defaultEditorToolsVisibility: "headers",
    defaultQuery: query,
    defaultHeaders: JSON.stringify({ Authorization: `Bearer ${key ?? "…"}` }, null, 2),
  }),
);
