"""YAML as configs need it: mappings, lists and scalars of a sane depth and size."""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 20  # levels of mappings and lists
MAX_NODES = 20_000
MAX_ALIASES = 100  # each may stand for many nodes


class PlainLoader(yaml.SafeLoader):
    """Loader that raises MarkedYAMLError for deep nesting, too many nodes and too many aliases.

    PyYAML composes nodes recursively, so that deep nesting would exhaust the stack.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = self._nodes = self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node within the limits."""
        self._nodes += 1
        self._aliases += self.check_event(yaml.AliasEvent)
        self._limit(self._depth >= MAX_DEPTH, f"more than {MAX_DEPTH} levels of nesting")
        self._limit(self._nodes > MAX_NODES, f"more than {MAX_NODES} values")
        self._limit(self._aliases > MAX_ALIASES, f"more than {MAX_ALIASES} aliases (*name)")
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _limit(self, exceeded: bool, problem: str) -> None:
        if exceeded:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.peek_event().start_mark)
