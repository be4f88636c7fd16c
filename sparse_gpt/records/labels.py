"""labels.json: the names that people give to the nodes of a circuit."""

from typing import Annotated, ClassVar

from msgspec import Meta

from sparse_gpt.records.base import Part, Record, older
from sparse_gpt.records.circuit import Circuit, Node, NodeEntry

Name = Annotated[str, Meta(min_length=1, max_length=200, extra={"expected": "text of 1 to 200 characters"})]


class NodeLabel(NodeEntry):
    """A node and its name."""

    label: Name
    """What people call it."""


class Group(Part):
    """Nodes that do one thing together (a supernode)."""

    name: Name
    """What people call it."""
    nodes: tuple[Node, ...]
    """Its members."""


class Labels(Record):
    """Names that people give to nodes and groups of nodes, and how they read the circuit."""

    FILE: ClassVar[str] = "circuits/TASK/labels.json"
    FORMAT: ClassVar[str] = "sparse_gpt.labels/1"
    REMEDY: ClassVar[str] = "mend it, or delete it and save it again from the circuit's page"

    task: str
    """The circuit's task."""
    params_sha256: str
    """Fingerprint of the weights that the circuit belongs to."""
    nodes: tuple[NodeLabel, ...] = older(())
    """Nodes with a name of their own."""
    groups: tuple[Group, ...] = older(())
    """Groups; a node is in one of them at most."""
    reading: str = older("")
    """What the circuit does, in a person's words."""

    def of_circuit(self, circuit: Circuit) -> "tuple[Labels | None, str]":
        """The labels that fit a circuit, and what is to be said of those that do not ("" of nothing).

        None if they belong to another circuit; names of nodes that this one does not have are left out.
        """
        if (self.task, self.params_sha256) != (circuit.task, circuit.params_sha256):
            other = f"{self.task or 'no task'}, weights {self.params_sha256[:12]}"
            return None, f"labels.json belongs to another circuit ({other}); it was left aside"
        known = {entry.node for entry in circuit.nodes}
        nodes = tuple(entry for entry in self.nodes if entry.node in known)
        groups = tuple(
            Group(name=group.name, nodes=tuple(node for node in group.nodes if node in known)) for group in self.groups
        )
        named = {entry.node for entry in self.nodes} | {node for group in self.groups for node in group.nodes}
        lost = len(named - known)
        said = f"labels.json names {lost} nodes that this circuit does not have; they were left out" if lost else ""
        groups = tuple(group for group in groups if group.nodes)
        fitting = Labels(
            task=self.task, params_sha256=self.params_sha256, nodes=nodes, groups=groups, reading=self.reading
        )
        return fitting, said

    @property
    def by_key(self) -> dict[str, str]:
        """Node key -> its name."""
        return {entry.node.key: entry.label for entry in self.nodes}

    @property
    def group_by_key(self) -> dict[str, str]:
        """Node key -> the name of its group."""
        return {node.key: group.name for group in self.groups for node in group.nodes}
