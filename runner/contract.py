"""Which functions of an app can be called, and how a call's body meets a function's parameters."""

import inspect
import json

ITEM, KEYWORDS = "item", "keywords"
_ITEM_PARAMETERS = ["item", "run_id", "logger"]
# What a body says to the server and not to the function.
_PLATFORM = ("webhook_endpoint", "webhook_events_filter", "webhook_metadata")


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
        self.contract = ITEM if is_item else KEYWORDS
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


def _parameters(function):
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        # Native functions may not tell; let them take what comes.
        return [inspect.Parameter("parameters", inspect.Parameter.VAR_KEYWORD)]
