"""The tenants of the tests, and how their data is told apart."""

# The attribute that names each tenant: the second is used where the first is not there.
TENANTS = {"red": "tenant", "green": "tenant", "blue": "k8s.namespace.name"}


def attributes(message):
    """The texts among a resource's attributes: of a message, or of the same in JSON."""
    if isinstance(message, dict):
        pairs = message["resource"]["attributes"]
        return {pair["key"]: pair["value"]["stringValue"] for pair in pairs if "stringValue" in pair["value"]}
    return {pair.key: pair.value.string_value for pair in message.resource.attributes}


def by_tenant(messages):
    """Groups messages by the tenant that their resource names."""
    found = {}
    for message in messages:
        named = attributes(message)
        found.setdefault(named.get("tenant") or named["k8s.namespace.name"], []).append(message)
    return found


def check(sink, path, sent):
    """Each tenant's upstream requests hold what was sent of the tenant, in its order, and nothing else."""
    expected = by_tenant(sent)
    assert set(expected) == set(TENANTS)
    stored = {tenant: messages for (at, tenant), messages in sink.stored.items() if at == path and tenant}
    assert stored == expected
