"""Secrets Manager and Parameter Store in memory, as their manuals say.

A `FakeTransport` stands where `lambda_ext.aws.transport` would: it takes an operation
and its parameters and returns what AWS would, or raises what the transport
makes of AWS's error.  It refuses what AWS refuses (too many names, duplicates
are collapsed, one denied name spoils GetParameters), so that what passes here
has not passed by leniency.
"""

from __future__ import annotations

from lambda_ext.aws import errors

ACCOUNT = "123456789012"
REGION = "eu-central-1"


class FakeTransport:
    """One service; `calls` holds (operation, parameters) of each call."""

    def __init__(self, service, identity="AKID"):
        self.service = service
        self.scope = (service, REGION, "https://" + service, identity)
        self.calls = []
        self.denied_operations = set()
        self.denied_names = set()
        self.failures = []  # raised by the next calls, in order

    @property
    def operations(self):
        """The names of the operations that were called."""
        return [operation for operation, _ in self.calls]

    def call(self, operation, parameters, *, timeout_s=None):
        self.calls.append((operation, dict(parameters)))
        if self.failures:
            raise self.failures.pop(0)
        if operation in self.denied_operations:
            raise self.error(
                "AccessDeniedException",
                f"not authorized to perform: {operation}",
                errors.key_of(parameters),
            )
        return getattr(self, operation)(**parameters)

    def error(self, code, text="", key=""):
        return errors.from_code(code, text, service=self.service, key=key)


class Secrets(FakeTransport):
    """Secrets Manager.  `secrets` maps a name to its versions, the last current.

    `foreign` maps ARNs of other accounts to values.  A batch leaves out what is
    in `omitted`, and answers in the order that `order` makes of the ARNs.
    """

    def __init__(self, secrets, **options):
        super().__init__("secretsmanager", **options)
        self.secrets = {
            name: versions if isinstance(versions, list) else [versions]
            for name, versions in secrets.items()
        }
        self.deleted = set()
        self.undecryptable = set()
        self.suffixes = {}  # of ARNs, by name
        self.foreign = {}
        self.omitted = set()
        self.order = list

    def arn(self, name):
        suffix = self.suffixes.get(name, "AbCdEf")
        return f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-{suffix}"

    def version_id(self, name, number):
        return f"{number:032d}"

    def _find(self, secret_id):
        for form in (self.arn, str, lambda name: self.arn(name)[:-7]):
            for name in self.secrets:
                if secret_id == form(name):
                    return name
        raise self.error("ResourceNotFoundException", "can't find it", secret_id)

    def _check(self, secret_id):
        name = self._find(secret_id)
        if name in self.denied_names:
            raise self.error("AccessDeniedException", "not authorized", secret_id)
        if name in self.deleted:
            raise self.error(
                "InvalidRequestException", "marked for deletion", secret_id
            )
        if name in self.undecryptable:
            raise self.error("DecryptionFailure", "", secret_id)
        return name

    def _answer(self, name, number):
        value = self.secrets[name][number - 1]
        last = len(self.secrets[name])
        stages = {last: ["AWSCURRENT"], last - 1: ["AWSPREVIOUS"]}.get(number, [])
        field = "SecretString" if isinstance(value, str) else "SecretBinary"
        return {
            "ARN": self.arn(name),
            "Name": name,
            "VersionId": self.version_id(name, number),
            field: value,
            "VersionStages": stages,
        }

    def _abroad(self, arn):
        name = arn.split(":")[6][:-7]
        version = self.version_id(name, 1)
        value = self.foreign[arn]
        return {"ARN": arn, "Name": name, "VersionId": version, "SecretString": value}

    def GetSecretValue(self, SecretId, VersionId=None, VersionStage=None):
        if SecretId in self.foreign:
            return self._abroad(SecretId)
        name = self._check(SecretId)
        last = len(self.secrets[name])
        numbers = {"AWSCURRENT": last, "AWSPREVIOUS": last - 1}
        number = numbers.get(VersionStage or "AWSCURRENT", 0)
        if VersionId is not None:
            if VersionStage is not None and number != int(VersionId):
                raise self.error("InvalidParameterException", "two versions", SecretId)
            number = int(VersionId)
        if not 1 <= number <= last:
            raise self.error("ResourceNotFoundException", "no version", SecretId)
        return self._answer(name, number)

    def BatchGetSecretValue(self, SecretIdList):
        if not 1 <= len(SecretIdList) <= 20:
            raise self.error("ValidationException", "1 to 20")
        values, refused = {}, []
        for secret_id in SecretIdList:
            if secret_id in self.foreign:
                values[secret_id] = self._abroad(secret_id)
                continue
            try:
                name = self._check(secret_id)
            except errors.SourceError as exc:
                refused.append(
                    {"SecretId": secret_id, "ErrorCode": exc.code, "Message": str(exc)}
                )
            else:
                if secret_id not in self.omitted:
                    arn = self.arn(name)
                    values[arn] = self._answer(name, len(self.secrets[name]))
        for arn in self.omitted:
            values.pop(arn, None)
        return {
            "SecretValues": [values[arn] for arn in self.order(values)],
            "Errors": refused,
        }


class Parameters(FakeTransport):
    """Parameter Store.

    `parameters` maps a name to its versions, the last current; `labels` a
    label to a version, for all names.  With *selectors* an answer says which
    version was asked for, as AWS's does and moto's does not.  `foreign` maps
    ARNs that other accounts share to values; they come under bare names.
    """

    def __init__(self, parameters, *, labels=None, selectors=True, **options):
        super().__init__("ssm", **options)
        self.parameters = {
            name: versions if isinstance(versions, list) else [versions]
            for name, versions in parameters.items()
        }
        self.labels = labels or {}
        self.selectors = selectors
        self.secure = set()
        self.page = 10
        self.foreign = {}
        self.omitted = set()
        self.order = sorted

    def arn(self, name):
        return f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/{name.lstrip('/')}"

    def _split(self, text):
        if text.startswith("arn:"):
            parts = text.split(":")
            base, selector = ":".join(parts[:6]), parts[6:]
        else:
            base, *selector = text.split(":")
        return base, selector[0] if selector else None

    def _find(self, text):
        """Return (name, number), or None."""
        base, selector = self._split(text)
        names = sorted(self.parameters, key=lambda name: name != base)
        for name in names:  # "x" and "/x" have one ARN
            versions = self.parameters[name]
            if base in (name, self.arn(name)):
                if selector is None:
                    return name, len(versions)
                number = int(selector) if selector.isdigit() else None
                number = number or self.labels.get(selector, 0)
                return (name, number) if 1 <= number <= len(versions) else None
        return None

    def _answer(self, text, name, number, decrypt):
        value = self.parameters[name][number - 1]
        secure = name in self.secure
        answer = {
            "Name": name,
            "ARN": self.arn(name),
            "Type": "SecureString" if secure else "String",
            "Value": value if decrypt or not secure else "cipher:" + value,
            "Version": number,
        }
        selector = self._split(text)[1]
        if selector is not None and self.selectors:
            answer["Selector"] = ":" + (
                str(int(selector)) if selector.isdigit() else selector
            )
        return answer

    def _abroad(self, arn):
        name = "/" + arn.split(":")[5].removeprefix("parameter/")
        return {"Name": name, "ARN": arn, "Value": self.foreign[arn], "Version": 1}

    def GetParameter(self, Name, WithDecryption):
        if Name in self.foreign:
            return {"Parameter": self._abroad(Name)}
        found = self._find(Name)
        base, selector = self._split(Name)
        if found is None:
            exists = self._find(base) is not None
            if exists and selector and selector.isdigit():
                raise self.error("ParameterVersionNotFound", "", Name)
            raise self.error("ParameterNotFound", "", Name)
        if found[0] in self.denied_names:
            raise self.error("AccessDeniedException", "not authorized", Name)
        return {"Parameter": self._answer(Name, *found, WithDecryption)}

    def GetParameters(self, Names, WithDecryption):
        if not 1 <= len(Names) <= 10:
            raise self.error("ValidationException", "1 to 10")
        values, invalid = {}, set()
        for text in dict.fromkeys(Names):
            if text in self.foreign:
                values[text] = self._abroad(text)
                continue
            found = self._find(text)
            if found is None:
                invalid.add(text)
            elif found[0] in self.denied_names:
                raise self.error("AccessDeniedException", "not authorized", text)
            elif text not in self.omitted:
                values[text] = self._answer(text, *found, WithDecryption)
        return {
            "Parameters": [values[text] for text in self.order(values)],
            "InvalidParameters": sorted(invalid),
        }

    def GetParametersByPath(
        self, Path, Recursive, WithDecryption, MaxResults, NextToken="0"
    ):
        path = Path.rstrip("/") + "/"
        names = sorted(
            name
            for name in self.parameters
            if name.startswith(path) and (Recursive or "/" not in name[len(path) :])
        )
        begin = int(NextToken)
        page = {
            "Parameters": [
                self._answer(name, name, len(self.parameters[name]), WithDecryption)
                for name in names[begin : begin + self.page]
            ]
        }
        if begin + self.page < len(names):
            page["NextToken"] = str(begin + self.page)
        return page
