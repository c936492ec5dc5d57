"""Authentication and RBAC: bearer tokens, Roles of ServiceAccounts, and a record of each call."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from tests.cluster.store import Store

ADMIN = "admin"


class Call(NamedTuple):
    """One request, with the attributes of RBAC. `name` is empty for collections."""

    user: str
    verb: str
    group: str
    resource: str
    name: str
    namespace: str


class Access:
    """Users: an administrator, and ServiceAccounts as `system:serviceaccount:NAMESPACE:NAME`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Over plain HTTP kubectl sends no token, even if it has one: requests without a token are the administrator's.
        self._users = {"": ADMIN}
        self._tokens: dict[str, str] = {ADMIN: ""}

    def token(self, user: str) -> str:
        if user not in self._tokens:
            self._tokens[user] = secrets.token_hex(16)
            self._users[self._tokens[user]] = user
        return self._tokens[user]

    def user(self, header: str) -> str | None:
        """The user of an Authorization header."""
        return self._users.get(header.removeprefix("Bearer "))

    def allows(self, call: Call) -> bool:
        if call.user == ADMIN:
            return True
        *_, namespace, account = call.user.split(":")
        for binding in self._store.list("rolebindings", call.namespace):
            subjects = [
                (each["kind"], each.get("namespace", call.namespace), each["name"]) for each in binding.get("subjects", [])
            ]
            role = self._store.get("roles", call.namespace, binding["roleRef"]["name"])
            if (
                role
                and ("ServiceAccount", namespace, account) in subjects
                and any(_grants(rule, call) for rule in role["rules"])
            ):
                return True
        return False


def _grants(rule: dict[str, list[str]], call: Call) -> bool:
    # A collection has no name, so a rule with resourceNames never grants create or list.
    return (
        bool({call.verb, "*"} & set(rule["verbs"]))
        and bool({call.group, "*"} & set(rule.get("apiGroups", [])))
        and bool({call.resource, "*"} & set(rule.get("resources", [])))
        and ("resourceNames" not in rule or call.name in rule["resourceNames"])
    )
