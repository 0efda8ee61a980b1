// GraphiQL. It asks as a key or a token: the one in the address's fragment (#key=…), which never reaches the server as
// part of it, or the one that was entered here. It is kept for this tab alone.
const KEPT = "flash.graphiql-key";
const QUERY = `# Flash: ask who you are. An Authorization header, below under "Headers", asks as somebody else.
query Viewer {
  viewer {
    role
    merchant { name currency }
  }
}
`;

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((each) => [each.id, each]));
let key = new URLSearchParams(location.hash.slice(1)).get("key") ?? sessionStorage.getItem(KEPT);
let isRendered = false;

function askForKey(notice = "") {
  sessionStorage.removeItem(KEPT);
  element.notice.textContent = notice;
  element.notice.hidden = !notice;
  element.door.hidden = false;
  element.graphiql.hidden = true;
  element.key.value = "";
  element.key.focus();
}

function open() {
  // A header couldn't carry it.
  if (!/^[!-~]+$/.test(key)) return askForKey("This is no key and no token.");
  sessionStorage.setItem(KEPT, key);
  element.door.hidden = true;
  element.graphiql.hidden = false;
  if (isRendered) return;
  isRendered = true;
  const fetcher = GraphiQL.createFetcher({ url: "/graphql", fetch: send });
  ReactDOM.createRoot(element.graphiql).render(React.createElement(GraphiQL, { fetcher, defaultQuery: QUERY }));
}

async function send(url, request) {
  let headers;
  try {
    headers = new Headers(request.headers);
  } catch {
    return Response.json({ errors: [{ message: "The headers below can't be sent: they hold what no header may." }] });
  }
  const isOwn = !headers.has("authorization");
  if (isOwn) headers.set("authorization", `Bearer ${key}`);
  const response = await fetch(url, { ...request, headers });
  const { errors } = await response.clone().json();
  if (isOwn && errors?.some(({ extensions }) => extensions?.code === "UNAUTHENTICATED")) {
    askForKey("The engine doesn't accept this key or token, or no longer.");
  }
  return response;
}

element.enter.addEventListener("submit", (event) => {
  event.preventDefault();
  key = element.key.value.trim();
  open();
});

if (key === null) askForKey();
else open();
