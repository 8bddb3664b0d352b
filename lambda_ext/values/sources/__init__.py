"""
Where values come from: AWS's services, AWS's own extension, a local file.

A source is a class as `lambda_ext.typing.Source` describes it.  A new one is a
file here and a line in `make_source` of `values/settings.py`; its name is allowed by
`source` of `lambda_ext/parsers.py`, and its test inherits
`lambda_ext.contracts.SourceContract`.  `answers` checks what AWS has answered.
"""
