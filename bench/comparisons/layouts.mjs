// Lays out the edges from stdin with a library's default settings; prints CPU seconds and positions.
import { readFileSync } from "node:fs";
const { count, links, which } = JSON.parse(readFileSync(0, "utf8"));
const ROUNDS = 300;

async function d3() {
  const { forceSimulation, forceLink, forceManyBody, forceX, forceY } = await import("d3-force");
  const nodes = Array.from({ length: count }, (_, index) => ({ index }));
  const simulation = forceSimulation(nodes)
    .force("link", forceLink(links.map(([source, target]) => ({ source, target }))))
    .force("charge", forceManyBody()).force("x", forceX()).force("y", forceY()).stop();
  simulation.tick(ROUNDS);
  return nodes.map(({ x, y }) => [x, y]);
}

async function forceAtlas2() {
  const { default: Graph } = await import("graphology");
  const { default: layout } = await import("graphology-layout-forceatlas2");
  const graph = new Graph();
  let state = 1;
  const chance = () => (state = (state * 16807) % 2147483647) / 2147483647;
  for (let node = 0; node < count; node++) graph.addNode(node, { x: chance(), y: chance() });
  for (const [one, other] of links) graph.addEdge(one, other);
  const positions = layout(graph, { iterations: ROUNDS, settings: layout.inferSettings(graph) });
  return Array.from({ length: count }, (_, node) => [positions[node].x, positions[node].y]);
}

const begun = process.cpuUsage();
const positions = await { d3, forceAtlas2 }[which]();
const { user, system } = process.cpuUsage(begun);
process.stdout.write(JSON.stringify({ seconds: (user + system) / 1e6, positions }));
