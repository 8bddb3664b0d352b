"""Secrets, parameters, metrics and shutdown hooks inside a Lambda function."""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import exceptions as exceptions
    from . import metrics as metrics
    from . import telemetry as telemetry
    from . import testing as testing
    from . import typing as typing
    from .config import configure as configure
    from .dropin.light_client import client as client
    from .dropin.mixin import cached as cached
    from .dropin.patching import patch as patch
    from .dropin.patching import unpatch as unpatch
    from .flags.configuration import Configuration as Configuration
    from .flags.flags import Flags as Flags
    from .injection import inject as inject
    from .invocation import handler as handler
    from .invocation import start as start
    from .lifecycle.hooks import after_response as after_response
    from .lifecycle.hooks import after_restore as after_restore
    from .lifecycle.hooks import before_snapshot as before_snapshot
    from .lifecycle.hooks import defer as defer
    from .lifecycle.hooks import on_init as on_init
    from .lifecycle.hooks import on_invoke as on_invoke
    from .lifecycle.hooks import on_response as on_response
    from .lifecycle.hooks import on_shutdown as on_shutdown
    from .lifecycle.hooks import on_timeout as on_timeout
    from .lifecycle.invocations import Invocation as Invocation
    from .lifecycle.invocations import Outcome as Outcome
    from .metrics.recorder import Metrics as Metrics
    from .statistics import stats as stats
    from .values.batches import get_parameters as get_parameters
    from .values.batches import get_parameters_by_path as get_parameters_by_path
    from .values.batches import get_secrets as get_secrets
    from .values.getters import get_parameter as get_parameter
    from .values.getters import get_secret as get_secret
    from .values.handles import Parameter as Parameter
    from .values.handles import Secret as Secret
    from .values.rotation import refresh_on as refresh_on
else:
    # Public name -> the module that defines it.  Nothing is imported until
    # the name is first used; tests/test_cold_start.py holds what that costs.
    _HOME = {
        "Configuration": ".flags.configuration",
        "Flags": ".flags.flags",
        "Invocation": ".lifecycle.invocations",
        "Metrics": ".metrics.recorder",
        "Outcome": ".lifecycle.invocations",
        "Parameter": ".values.handles",
        "Secret": ".values.handles",
        "after_response": ".lifecycle.hooks",
        "after_restore": ".lifecycle.hooks",
        "before_snapshot": ".lifecycle.hooks",
        "cached": ".dropin.mixin",
        "client": ".dropin.light_client",
        "configure": ".config",
        "defer": ".lifecycle.hooks",
        "get_parameter": ".values.getters",
        "get_parameters": ".values.batches",
        "get_parameters_by_path": ".values.batches",
        "get_secret": ".values.getters",
        "get_secrets": ".values.batches",
        "handler": ".invocation",
        "inject": ".injection",
        "on_init": ".lifecycle.hooks",
        "on_invoke": ".lifecycle.hooks",
        "on_response": ".lifecycle.hooks",
        "on_shutdown": ".lifecycle.hooks",
        "on_timeout": ".lifecycle.hooks",
        "patch": ".dropin.patching",
        "refresh_on": ".values.rotation",
        "start": ".invocation",
        "stats": ".statistics",
        "unpatch": ".dropin.patching",
    }
    _MODULES = ("exceptions", "metrics", "telemetry", "testing", "typing")

    def __getattr__(name):
        from importlib import import_module

        if name in _MODULES:
            return import_module("." + name, __name__)
        try:
            home = _HOME[name]
        except KeyError:
            msg = f"module {__name__!r} has no attribute {name!r}"
            # Without name=: then Python adds it, and suggests the nearest of ours.
            raise AttributeError(msg) from None
        # The package first: CPython raises KeyError or a _DeadlockError where another
        # thread is just loading it while a part of it is asked for.
        import_module(home.rpartition(".")[0] or home, __name__)
        value = getattr(import_module(home, __name__), name)
        globals()[name] = value  # the next look-up never gets here
        return value

    def __dir__():
        return sorted({*globals(), *_HOME, *_MODULES})


__all__ = (
    "Configuration",
    "Flags",
    "Invocation",
    "Metrics",
    "Outcome",
    "Parameter",
    "Secret",
    "after_response",
    "after_restore",
    "before_snapshot",
    "cached",
    "client",
    "configure",
    "defer",
    "exceptions",
    "get_parameter",
    "get_parameters",
    "get_parameters_by_path",
    "get_secret",
    "get_secrets",
    "handler",
    "inject",
    "metrics",
    "on_init",
    "on_invoke",
    "on_response",
    "on_shutdown",
    "on_timeout",
    "patch",
    "refresh_on",
    "start",
    "stats",
    "telemetry",
    "testing",
    "typing",
    "unpatch",
)
