"""
Feature flags and configurations of AWS AppConfig.

    flags, configuration        `Flags` and `Configuration`: what a program reads with
    document, rules, patterns   a flag document; its rules; their regular expressions
    dialect                     what rules mean where AWS does not say
    session, agent, folder      the sources: AppConfig's data plane, its agent, files

Documents are polled by `lambda_ext.values.loader`, as secrets are refreshed.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .document import Evaluation as Evaluation
    from .document import Exposure as Exposure
else:

    def __getattr__(name):
        # Only annotations ask: a program that polls a Configuration needs neither.
        if name in __all__:
            from . import document

            return getattr(document, name)
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = ("Evaluation", "Exposure")
