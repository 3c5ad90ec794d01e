"""The upload form of the console: each thing that is stated about the file has a field of its own."""

from collections.abc import Sequence

import orjson

from app.console.documents import params, requests
from app.console.frame import forms
from app.files.multipart import Form
from app.processing.schemas import Offered

_PARAMS = "process_params"


class UploadForm(Form):
    """Takes the form, in which none but the file has to be filled in, and makes of it what the API's form has."""

    def __init__(self, boundary: bytes, max_file: int, offered: Sequence[Offered]) -> None:
        super().__init__(boundary, max_file)
        self.fields = ("description", "folder", "tags", "process", _PARAMS, *params.names(offered, _PARAMS))
        self._offered = offered

    def finish(self) -> dict[str, bytes]:
        """Return the parts as the API's form has them. Raises ValidationFailed, and what that raises."""
        given = {name: value for name, value in super().finish().items() if value.strip()}
        fields = {name: forms.unix(value.decode("utf-8", "replace")) for name, value in given.items()}
        work = {name: value for name, value in given.items() if name in ("process", _PARAMS)}
        if typed := params.typed(self._offered, fields, "process", _PARAMS):
            work[_PARAMS] = orjson.dumps(typed)
        return {"metadata": orjson.dumps(requests.stated(fields)), **work}
