"""What must a coordinator of a new term hear about the membership so far? The forms from the last tabled one on.

Epoch numbers alone would not tell it who may not be dropped (docs/protocol.md, "Who may be dropped from an epoch").
"""

from __future__ import annotations

from drivetrain_api.messages import EpochId, Form


class Handover:
    """Forms received, whether they name this pod or not, from that of the highest `table` on."""

    def __init__(self) -> None:
        self.tabled: EpochId | None = None
        self._forms: dict[EpochId, Form] = {}

    @property
    def forms(self) -> list[Form]:
        """Lowest first."""
        return [self._forms[epoch] for epoch in sorted(self._forms)]

    @property
    def newest(self) -> Form | None:
        """The form that counts now."""
        return self._forms[max(self._forms)] if self._forms else None

    def formed(self, form: Form) -> None:
        """A `form` was received."""
        if self.tabled is None or form.epoch >= self.tabled:
            self._forms[form.epoch] = form

    def table(self, epoch: EpochId) -> None:
        """A `table` was received: who belonged to earlier epochs no longer matters."""
        if self.tabled is None or epoch > self.tabled:
            self.tabled = epoch
            self._forms = {known: form for known, form in self._forms.items() if known >= epoch}
