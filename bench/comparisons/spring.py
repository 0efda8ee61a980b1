"""Lay out the edges from stdin with networkx's defaults; print CPU seconds and positions, like layouts.mjs."""

import json
import sys
import time

import networkx  # type: ignore[import-not-found,import-untyped,unused-ignore]

asked = json.load(sys.stdin)
graph = networkx.Graph()
graph.add_nodes_from(range(asked["count"]))
graph.add_edges_from(asked["links"])
begun = time.process_time()
found = networkx.spring_layout(graph, seed=1)
seconds = time.process_time() - begun
positions = [[float(found[node][0]), float(found[node][1])] for node in range(asked["count"])]
json.dump({"seconds": seconds, "positions": positions}, sys.stdout)
