"""What can be wrong with what a user wrote into a template.

InvalidTemplate     spec.podTemplate, or spec.coordinator.podTemplate, touches a reserved field, or cannot be merged
"""


class InvalidTemplate(ValueError):
    """A template cannot be used. `path` names the field to change, in the template at `root`."""

    def __init__(self, path: str, problem: str, root: str = "spec.podTemplate") -> None:
        super().__init__(f"{root}.{path}: {problem}" if path else f"{root}: {problem}")
        self.path = path
        self.problem = problem
