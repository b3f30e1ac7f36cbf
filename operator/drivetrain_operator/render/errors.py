"""What can be wrong with what a user wrote into a template.

InvalidTemplate     spec.podTemplate touches a reserved field, or cannot be merged
"""


class InvalidTemplate(ValueError):
    """spec.podTemplate cannot be used. `path` names the field to change."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"spec.podTemplate.{path}: {problem}")
        self.path = path
        self.problem = problem
