"""Who calls and what they may do: bearer tokens, Roles, access reviews.

No handling of requests. Without enforcement every known token may do everything.
"""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pyvatti.sandbox.kube.errors import ApiError
from pyvatti.sandbox.kube.resources import ROLEBINDINGS, ROLES, SERVICEACCOUNTS
from pyvatti.sandbox.kube.store import Store, timestamp

Body = dict[str, Any]

ANONYMOUS = "system:anonymous"
ADMIN = "admin"
OPEN_PATHS = ("/version", "/healthz", "/livez", "/readyz")


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request does. `resource` includes the subresource: `pods/log`."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str

    @property
    def qualified(self) -> str:
        """`jobs.batch`, `pods/log`."""
        plural, slash, sub = self.resource.partition("/")
        return f"{plural}.{self.group}{slash}{sub}" if self.group else self.resource


class Access:
    """Tokens, each with a user's name, and the permissions of the users.

    `used` collects per user every (verb, qualified resource) that was let through.
    """

    def __init__(self, store: Store, tokens: Mapping[str, str], *, enforce: bool) -> None:
        self.tokens = dict(tokens)
        self.enforce = enforce
        self.used: dict[str, set[tuple[str, str]]] = {}
        self._issued: dict[str, tuple[str, str]] = {}  # token -> namespace, account
        self._store = store

    def identify(self, authorization: str) -> str:
        """Give the user of an Authorization header. Raises ApiError 401 for an unknown token."""
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        user = self.tokens.get(token.strip()) if scheme.lower() == "bearer" else None
        account = self._issued.get(token.strip())
        # A token dies with the account it was issued for.
        if user is None or (account and self._store.find(SERVICEACCOUNTS, *account) is None):
            raise ApiError(401, "Unauthorized")
        return user

    def now(self) -> datetime:
        """Give the cluster's time."""
        return self._store.now()

    def issue(self, namespace: str, account: str) -> str:
        """Make a token of a ServiceAccount. Raises ApiError 404."""
        self._store.get(SERVICEACCOUNTS, namespace, account)
        token = secrets.token_urlsafe()
        self.tokens[token] = f"system:serviceaccount:{namespace}:{account}"
        self._issued[token] = (namespace, account)
        return token

    def check_path(self, user: str, path: str) -> None:
        """Let a request for no resource pass. Raises ApiError 403."""
        if user == ANONYMOUS and path.partition("?")[0].rstrip("/") not in OPEN_PATHS:
            raise ApiError(403, f'forbidden: User "{user}" cannot get path "{path}"')

    def check(self, user: str, asked: Attributes) -> None:
        """Let a request pass and record it. Raises ApiError 403."""
        if not self.allows(user, asked):
            raise ApiError(403, _refusal(user, asked), details=_details(asked))
        self.used.setdefault(user, set()).add((asked.verb, asked.qualified))

    def allows(self, user: str, asked: Attributes) -> bool:
        """Whether a user may do something."""
        if user == ANONYMOUS:
            return False
        if asked.group == "authorization.k8s.io" or not self.enforce or user == ADMIN:
            return True
        return any(_covers(rule, asked) for rule in self.rules(user, asked.namespace))

    def rules(self, user: str, namespace: str) -> Iterator[Body]:
        """Give the rules a user is bound to in a namespace."""
        if not self.enforce or user == ADMIN:
            yield {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
            return
        for binding in self._store.list(ROLEBINDINGS, namespace):
            if any(_is_subject(item, user, namespace) for item in binding.get("subjects", [])):
                role = self._store.find(ROLES, namespace, binding["roleRef"]["name"])
                yield from role.get("rules", []) if role else []


def _is_subject(subject: Body, user: str, namespace: str) -> bool:
    if subject["kind"] == "ServiceAccount":
        home = subject.get("namespace", namespace)
        return user == f"system:serviceaccount:{home}:{subject['name']}"
    return subject["kind"] == "User" and bool(subject["name"] == user)


def _covers(rule: Body, asked: Attributes) -> bool:
    names = rule.get("resourceNames", [])
    if names and asked.name not in names:
        return False
    _, slash, sub = asked.resource.partition("/")
    wanted = (
        (rule.get("verbs", []), {asked.verb}),
        (rule.get("apiGroups", []), {asked.group}),
        (
            rule.get("resources", []),
            {asked.resource, f"*/{sub}"} if slash else {asked.resource},
        ),
    )
    return all("*" in given or values & set(given) for given, values in wanted)


def _refusal(user: str, asked: Attributes) -> str:
    named = f' "{asked.name}"' if asked.name else ""
    where = f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
    return (
        f'{asked.qualified.partition("/")[0]}{named} is forbidden: User "{user}" cannot'
        f' {asked.verb} resource "{asked.resource}" in API group "{asked.group}"{where}'
    )


def _details(asked: Attributes) -> Body:
    details = {"name": asked.name, "group": asked.group, "kind": asked.resource.partition("/")[0]}
    return {key: value for key, value in details.items() if value}


def access_review(access: Access, user: str, body: Body) -> Body:
    """Answer a SelfSubjectAccessReview."""
    spec = body.get("spec", {})
    asked = spec.get("resourceAttributes")
    if asked is None:
        allowed = "nonResourceAttributes" in spec
    else:
        sub = f"/{asked['subresource']}" if asked.get("subresource") else ""
        allowed = access.allows(
            user,
            Attributes(
                asked.get("verb", ""),
                asked.get("group", ""),
                asked.get("resource", "") + sub,
                asked.get("namespace", ""),
                asked.get("name", ""),
            ),
        )
    status = {"allowed": allowed} if allowed else {"allowed": False, "reason": ""}
    return {**body, "metadata": {}, "status": status}


def rules_review(access: Access, user: str, body: Body) -> Body:
    """Answer a SelfSubjectRulesReview."""
    namespace = body.get("spec", {}).get("namespace", "")
    own = {
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        "verbs": ["create"],
    }
    status = {
        "resourceRules": [own, *access.rules(user, namespace)],
        "nonResourceRules": [{"nonResourceURLs": list(OPEN_PATHS), "verbs": ["get"]}],
        "incomplete": False,
    }
    return {**body, "metadata": {}, "status": status}


def token_request(access: Access, namespace: str, account: str, body: Body) -> Body:
    """Answer a TokenRequest about a ServiceAccount. Raises ApiError 404."""
    spec = {"audiences": [], "expirationSeconds": 3600} | body.get("spec", {})
    end = access.now() + timedelta(seconds=spec["expirationSeconds"])
    status = {"token": access.issue(namespace, account), "expirationTimestamp": timestamp(end)}
    return {**body, "spec": spec, "status": status}
