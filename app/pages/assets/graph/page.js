// Draws the snapshots of a merchant's network. Positions come from the server: nothing is laid out here.
"use strict";
const byId = (id) => document.getElementById(id);
const HEADER = `id takenOn comparedWith memberCount referralCount hubCount hubDegree newReferralCount newHubCount dataUrl`;
const SNAPSHOTS = `{ graphSnapshots(first: 100) { edges { node { ${HEADER} } } } }`;
const ONE = `query ($id: ID!) { node(id: $id) { ... on GraphSnapshot { ${HEADER} } } }`;
const TAKE = `mutation { takeGraphSnapshot { ... on TakeGraphSnapshotSuccess { jobId } } }`;
const HUBS_LISTED = 10;
const dark = matchMedia("(prefers-color-scheme: dark)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let key = new URLSearchParams(location.hash.slice(1)).get("key");
let snapshots = [];
let graph = new graphology.DirectedGraph();
let renderer = null;
let colors = {};
let held = null;
let near = new Set();
let columns = null;

async function ask(query, variables = {}) {
  const response = await fetch("/graphql", {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await response.json();
  if (errors) throw new Error(errors[0].message);
  return data;
}

function readColors() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "ink", "member", "hub", "new", "edge", "dim", "line"]) {
    colors[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

function build(data) {
  const { nodes, edges, unit } = data;
  const fresh = new Set(data.newHubs);
  const built = new graphology.DirectedGraph();
  const arrivals = new Set(data.newEdges.map((edge) => edges.referee[edge]));
  // The largest last, on top.
  for (let rank = nodes.label.length - 1; rank >= 0; rank--) {
    const isHub = rank < data.hubs;
    const size = unit * (isHub ? 0.3 * Math.min(4, 1.2 + Math.sqrt(nodes.degree[rank]) / 4) : 0.3);
    built.addNode(rank, {
      x: nodes.x[rank] / 100, y: -nodes.y[rank] / 100, size, isHub, isNew: fresh.has(rank) || arrivals.has(rank),
      label: data.labelPrefix + nodes.label[rank], zIndex: isHub ? 1 : 0,
    });
  }
  const news = new Set(data.newEdges);
  edges.referrer.forEach((referrer, number) => {
    built.mergeEdge(referrer, edges.referee[number], { size: unit * 0.1, isNew: news.has(number) });
  });
  return built;
}

function drawLabel(context, data, settings) {
  if (!data.label) return;
  context.font = `${settings.labelWeight} ${settings.labelSize}px ${settings.labelFont}`;
  const width = context.measureText(data.label).width;
  const x = data.x + data.size + 5;
  context.fillStyle = colors.paper;
  context.strokeStyle = colors.line;
  context.beginPath();
  context.roundRect(x - 5, data.y - 11, width + 10, 22, 6);
  context.fill();
  context.stroke();
  context.fillStyle = colors.ink;
  context.fillText(data.label, x, data.y + settings.labelSize / 3);
}

function nodeLook(node, data) {
  const wantsNews = byId("news").checked;
  const look = { ...data, color: data.isHub ? colors.hub : colors.member };
  if (wantsNews) look.color = data.isNew ? colors.new : colors.dim;
  if (held !== null && !near.has(node)) {
    look.color = colors.dim;
    look.label = "";
  }
  if (node === held) look.highlighted = true;
  return look;
}

function edgeLook(edge, data) {
  const look = { ...data, color: colors.edge };
  if (byId("news").checked) look.color = data.isNew ? colors.new : colors.dim;
  if (held !== null && !graph.extremities(edge).includes(held)) look.color = colors.dim;
  return look;
}

function show(data) {
  columns = data;
  graph = build(data);
  hold(null);
  if (renderer === null) {
    renderer = new Sigma(graph, byId("network"), {
      allowInvalidContainer: true, itemSizesReference: "positions", zoomToSizeRatioFunction: (ratio) => ratio ** 0.75,
      minEdgeThickness: 1.7, labelFont: "system-ui, sans-serif", labelSize: 12, labelWeight: "500", labelDensity: 0.4,
      labelRenderedSizeThreshold: 9, labelColor: { attribute: "labelColor", color: colors.ink }, zIndex: true,
      nodeReducer: nodeLook, edgeReducer: edgeLook, defaultDrawNodeHover: drawLabel, stagePadding: 24,
      minCameraRatio: 0.004, maxCameraRatio: 2,
    });
    // The frame is the server's, so that the picture of another day doesn't shift.
    renderer.on("enterNode", ({ node }) => hold(node));
    renderer.on("leaveNode", () => hold(null));
    renderer.on("clickNode", ({ node }) => goTo(node));
    renderer.setCustomBBox({ x: [0, data.frame], y: [-data.frame, 0] });
  } else {
    renderer.setGraph(graph);
  }
  listHubs();
  renderer.refresh();
  document.body.dataset.drawn = String(graph.order);
}

function hold(node) {
  held = node;
  near = node === null ? new Set() : new Set([node, ...graph.neighbors(node)]);
  byId("chosen").replaceChildren(...(node === null ? [] : describe(node)));
  renderer?.refresh({ skipIndexation: true });
}

function describe(node) {
  const rank = Number(node);
  const name = document.createElement("b");
  name.textContent = graph.getNodeAttribute(node, "label");
  const list = document.createElement("dl");
  const facts = {
    "Brought": columns.nodes.recruited[rank],
    "Was brought": columns.nodes.degree[rank] - columns.nodes.recruited[rank] ? "yes" : "no",
    "Degree": columns.nodes.degree[rank],
    "Community": columns.nodes.community[rank],
  };
  for (const [term, value] of Object.entries(facts)) {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = term;
    dd.textContent = value;
    list.append(dt, dd);
  }
  return [name, list];
}

function goTo(node) {
  const { x, y } = renderer.getNodeDisplayData(node);
  const ratio = Math.min(renderer.getCamera().ratio, 0.15);
  hold(node);
  renderer.getCamera().animate({ x, y, ratio }, { duration: calm.matches ? 0 : 450 });
}

function listHubs() {
  const entries = columns.nodes.label.slice(0, Math.min(HUBS_LISTED, columns.hubs)).map((label, rank) => {
    const [item, button, count] = ["li", "button", "span"].map((tag) => document.createElement(tag));
    button.type = "button";
    count.textContent = columns.nodes.recruited[rank];
    button.append(columns.labelPrefix + label, count);
    button.addEventListener("click", () => goTo(String(rank)));
    item.append(button);
    return item;
  });
  byId("hubs").replaceChildren(...entries);
}

async function showDay(number) {
  const { id, takenOn } = snapshots[number];
  byId("date").textContent = takenOn;
  const { node } = await ask(ONE, { id });
  if (node === null) return load();
  const data = await (await fetch(node.dataUrl)).json();
  const count = (value, one, many = `${one}s`) => `${value.toLocaleString("en")} ${value === 1 ? one : many}`;
  byId("summary").textContent = `${count(node.memberCount, "member")} · ` +
    `${count(node.referralCount, "converted referral")} · ${count(node.hubCount, "hub")}`;
  byId("hub-rule").textContent = `Hubs: ${node.hubDegree} ties or more`;
  byId("since").textContent = node.comparedWith === null ? "New: there is no earlier day"
    : `New since ${node.comparedWith}: ${node.newReferralCount.toLocaleString("en")}`;
  byId("news").disabled = node.comparedWith === null;
  show(data);
}

async function load() {
  try {
    snapshots = (await ask(SNAPSHOTS)).graphSnapshots.edges.map((edge) => edge.node).reverse();
  } catch (error) {
    return login(error.message);
  }
  if (snapshots.length === 0) {
    byId("summary").textContent = "There is no snapshot yet; the first one is being asked for.";
    try {
      await ask(TAKE);
    } catch {
      byId("summary").textContent = "There is no snapshot yet.";
      return;
    }
    setTimeout(load, 2000);
    return;
  }
  byId("day").max = String(snapshots.length - 1);
  byId("day").value = byId("day").max;
  byId("day").disabled = snapshots.length === 1;
  await showDay(snapshots.length - 1);
}

function login(why) {
  if (why) byId("why").textContent = why;
  byId("login").showModal();
}

function found(text) {
  const wanted = text.trim().toLowerCase().replace(/^member\s+/, "");
  if (!wanted || columns === null) return [];
  const matches = [];
  for (let rank = 0; rank < columns.nodes.label.length && matches.length < 20; rank++) {
    if (columns.nodes.label[rank].includes(wanted)) matches.push(rank);
  }
  return matches;
}

const KEYS = {
  ArrowLeft: (camera, step) => ({ x: camera.x - step }),
  ArrowRight: (camera, step) => ({ x: camera.x + step }),
  ArrowUp: (camera, step) => ({ y: camera.y + step }),
  ArrowDown: (camera, step) => ({ y: camera.y - step }),
  "+": (camera) => ({ ratio: camera.ratio / 1.5 }),
  "=": (camera) => ({ ratio: camera.ratio / 1.5 }),
  "-": (camera) => ({ ratio: camera.ratio * 1.5 }),
  0: () => ({ x: 0.5, y: 0.5, ratio: 1 }),
};

function move(name) {
  const camera = renderer?.getCamera();
  if (!camera || !KEYS[name]) return false;
  const state = { ...camera.getState(), ...KEYS[name](camera.getState(), camera.ratio * 0.12) };
  camera.animate(camera.validateState(state), { duration: calm.matches ? 0 : 150 });
  return true;
}

byId("network").addEventListener("keydown", (event) => {
  if (event.key === "Escape") hold(null);
  else if (!event.ctrlKey && !event.metaKey && move(event.key)) event.preventDefault();
});
byId("zoom").addEventListener("click", ({ target }) => move({ in: "+", out: "-", all: "0" }[target.dataset.zoom]));
byId("news").addEventListener("change", () => renderer?.refresh({ skipIndexation: true }));
byId("day").addEventListener("input", ({ target }) => { byId("date").textContent = snapshots[target.value].takenOn; });
byId("day").addEventListener("change", ({ target }) => showDay(Number(target.value)));
byId("label").addEventListener("input", ({ target }) => {
  byId("matches").replaceChildren(...found(target.value).map((rank) => {
    const option = document.createElement("option");
    option.value = columns.labelPrefix + columns.nodes.label[rank];
    return option;
  }));
});
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const [rank] = found(byId("label").value);
  if (rank === undefined) byId("summary").textContent = "Nobody in this snapshot is called that.";
  else goTo(String(rank));
});
byId("login").addEventListener("close", () => { key = byId("key").value; load(); });
dark.addEventListener("change", () => {
  readColors();
  renderer?.setSetting("labelColor", { color: colors.ink });
  renderer?.refresh();
});
readColors();
if (key) load();
else login();
