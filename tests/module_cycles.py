"""A contract for import-linter: no module imports itself through others.

Its own contract `acyclic_siblings` compares packages, and would call two packages a cycle although no module is in one.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class AcyclicModules(Contract):
    """No cycle among the modules of the root packages, imports inside functions included."""

    type_name = "acyclic_modules"
    packages = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        roots = set(self.packages)  # type: ignore[call-overload]
        inside = sorted(name for name in graph.modules if name.split(".")[0] in roots)
        cycle = find_cycle({name: graph.find_modules_directly_imported_by(name) for name in inside})
        return ContractCheck(kept=not cycle, metadata={"cycle": cycle})

    def render_broken_contract(self, check: ContractCheck) -> None:
        output.print_error(" -> ".join(check.metadata["cycle"]))


def find_cycle(imports: dict[str, set[str]]) -> list[str]:
    """Return one cycle, each name importing the next, the first again at the end; an empty list if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        # Its order is from what is imported to what imports it.
        return list(reversed(error.args[1]))
    return []
