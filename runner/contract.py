"""Which functions of an app can be called, and how a call's body meets a function's parameters."""

import inspect
import json

ITEM, KEYWORDS, MODEL = "item", "keywords", "model"
_ITEM_PARAMETERS = ["item", "run_id", "logger"]
# What a body says to the server and not to the function.
_PLATFORM = ("webhook_endpoint", "webhook_events_filter", "webhook_metadata")


class Invalid(Exception):
    """The body does not fit the pydantic models that the function's parameters name."""


class Function:
    """One function of the app that can be called."""

    def __init__(self, name, function):
        self.name = name
        self.function = function
        self.streams = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        self.is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        parameters = _parameters(function)
        self._positional = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
        self._named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self._names = frozenset(p.name for p in self._named)
        self._takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        is_item = [p.name for p in parameters] == _ITEM_PARAMETERS
        self._models = {} if is_item else _models(function, self._named)
        # The parameter that is the whole body.
        self._whole = None
        if self._models and not self._takes_any and [p.name for p in self._named if p.name != "run_id"] == list(self._models):
            (self._whole,) = self._models
        self.contract = ITEM if is_item else MODEL if self._whole else KEYWORDS
        self._wants_run_id = not is_item and "run_id" in self._names
        self._dropped = [name for name in _PLATFORM if name not in self._names]
        if "run_id" not in self._names and not self._takes_any:
            self._dropped.append("run_id")

    def described(self):
        """The function as `ready` tells the worker."""
        return {
            "name": self.name,
            "contract": self.contract,
            "parameters": [
                {"name": p.name, "required": p.default is p.empty and not (p.name == "run_id" and self._wants_run_id)}
                for p in self._named
            ],
            "takes_any": self._takes_any,
            "streams": self.streams,
        }

    def invoke(self, body, run_id, logger):
        """Calls the function with the raw JSON `body`; whatever it raises is the call's answer."""
        values = _parsed(str(body, "utf-8")) if body else {}
        if type(values) is not dict:
            raise TypeError("the body must be a JSON object with the parameters of {}()".format(self.name))
        if self.contract is ITEM:
            return self.function(values, run_id, logger)
        if self._models:
            values = self._modelled(values)
        if self._wants_run_id:
            values.setdefault("run_id", run_id)
        if not self._names.issuperset(values):
            for name in self._dropped:
                values.pop(name, None)
            if not self._takes_any and not self._names.issuperset(values):
                raise TypeError(self._unexpected(values))
        if self._positional:
            return self._invoke_positional(values)
        return self.function(**values)

    def _modelled(self, values):
        """The values with those that are pydantic models made into them."""
        if self._whole is None:
            return {
                name: self._models[name].made_of(value, name) if name in self._models and type(value) is dict else value
                for name, value in values.items()
            }
        model = self._models[self._whole]
        own = values.get(self._whole)
        if type(own) is dict and self._whole not in model.fields and set(values) <= {self._whole, "run_id", *_PLATFORM}:
            # Under the parameter's name, as any other function is called.
            fields = own
        else:
            ours = ("run_id",) + _PLATFORM
            fields = {name: value for name, value in values.items() if name in model.fields or name not in ours}
        filled = {self._whole: model.made_of(fields, None)}
        if self._wants_run_id and "run_id" in values:
            filled["run_id"] = values["run_id"]
        return filled

    def _invoke_positional(self, values):
        positional = []
        for name in self._positional:
            if name not in values:
                break
            positional.append(values.pop(name))
        return self.function(*positional, **values)

    def _unexpected(self, values):
        unknown = ", ".join("'{}'".format(name) for name in values if name not in self._names)
        known = ", ".join(p.name for p in self._named) or "no parameters"
        return "{}() got unexpected parameters: {}; it takes {}".format(self.name, unknown, known)


_scan = json.JSONDecoder().scan_once


def _parsed(text):
    """What `json.loads` makes; bodies rarely have white space around them, so it is not looked for first."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return json.loads(text)
    return value if end == len(text) else json.loads(text)


def functions_of(module):
    """The functions that `module` defines itself and does not hide with an underscore, in its order."""
    return [
        Function(name, value)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isroutine(value) or (callable(value) and hasattr(value, "__wrapped__")))
        and not inspect.isclass(value)
        and getattr(value, "__module__", None) == module.__name__
    ]


class _Model:
    """A pydantic model, of either generation of that library."""

    _TOLD_MAX = 10

    def __init__(self, kind):
        self._kind = kind
        self._make = kind.model_validate if hasattr(kind, "model_validate") else kind.parse_obj
        fields = kind.model_fields if hasattr(kind, "model_fields") else kind.__fields__
        self.fields = set(fields) | {getattr(field, "alias", None) for field in fields.values()}

    def made_of(self, value, name):
        try:
            return self._make(value)
        except ValueError as reason:
            # pydantic's own error is one.
            if not callable(getattr(reason, "errors", None)):
                raise
            raise Invalid(self._explained(reason, name)) from None

    def _explained(self, reason, name):
        errors = reason.errors()
        told = []
        for error in errors[: self._TOLD_MAX]:
            place = ".".join(str(part) for part in (() if name is None else (name,)) + tuple(error["loc"]))
            told.append("`{}`: {}".format(place, error["msg"]) if place else error["msg"])
        if len(errors) > self._TOLD_MAX:
            told.append("and {} more".format(len(errors) - self._TOLD_MAX))
        return "the body does not fit {}: {}".format(self._kind.__name__, "; ".join(told))


def _models(function, parameters):
    """The parameters that are annotated with a pydantic model, or with an optional one."""
    if not any(parameter.annotation is not parameter.empty for parameter in parameters):
        return {}
    # Slow to start, and of use to those only who annotate.
    import typing

    try:
        hints = typing.get_type_hints(function)
    except Exception:
        # Names that exist for type checkers only; then each annotation stands for itself.
        hints = {parameter.name: parameter.annotation for parameter in parameters}
    found = {}
    for parameter in parameters:
        hint = hints.get(parameter.name)
        choices = [choice for choice in getattr(hint, "__args__", ()) if choice is not type(None)]
        if getattr(hint, "__origin__", None) is typing.Union and len(choices) == 1:
            hint = choices[0]
        if isinstance(hint, type) and (
            callable(getattr(hint, "model_validate", None)) or (hasattr(hint, "__fields__") and hasattr(hint, "parse_obj"))
        ):
            found[parameter.name] = _Model(hint)
    return found


def _parameters(function):
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        # Native functions may not tell; let them take what comes.
        return [inspect.Parameter("parameters", inspect.Parameter.VAR_KEYWORD)]
