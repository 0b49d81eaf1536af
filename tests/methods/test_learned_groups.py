"""The groups that the turns of a stage learn, and of all stages."""

import dataclasses

from jaxgen.methods.base import Method, Turn, learned_groups


@dataclasses.dataclass(frozen=True)
class Growing(Method):
    stages = ((0, 0), (64, 1))

    def turns(self, stage):
        first = Turn("play", ("generator", "mapping"), None), Turn("judge", ("critic",), None)
        return (*first, Turn("both", ("critic", "mapping", "late"), None)) if stage else first


def test_each_group_is_named_once_in_the_order_of_the_turns():
    assert learned_groups(Growing(), 0) == ("generator", "mapping", "critic")
    assert learned_groups(Growing(), 1) == learned_groups(Growing()) == ("generator", "mapping", "critic", "late")
