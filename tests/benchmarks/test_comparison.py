from benchmarks.arithmetic import Shapes
from benchmarks.comparison import compare
from benchmarks.environment import Environment
from benchmarks.system import System
from nmt.errors import UserError


def system(key):
    """One of ours, or a peer, which has an environment and prepares it in no time."""
    environment = None if key.startswith("ours") else Built(name=key, python="3", packages=[])
    return System(
        key=key, title=key.upper(), description="", driver="", shapes=Shapes, packages=(), environment=environment
    )


class Built(Environment):
    def build(self):
        return self.interpreter


def test_ours_runs_right_before_every_run_of_a_peer():
    order = []

    def measure(system, number):
        order.append((system.key, number))
        return {"place": len(order)}

    found = compare([system("ours"), system("a"), system("b")], measure, rounds=2, vocabulary_size=8000, what="test")
    turns = [("ours", 0), ("a", 0), ("ours", 1), ("b", 0), ("ours", 2), ("a", 1), ("ours", 3), ("b", 1)]
    assert order == turns
    assert [run["place"] for run in found["ours"]["runs"]] == [1, 3, 5, 7]
    assert [run["place"] for run in found["b"]["runs"]] == [4, 8]
    assert [run["place"] for run in found["b"]["beside"]] == [3, 7]


def test_variants_of_ours_follow_one_run_of_it():
    order = []

    def measure(system, number):
        order.append(system.key)
        return {"place": len(order)}

    systems = [system(key) for key in ("ours", "ours-small", "ours-odd", "a")]
    found = compare(systems, measure, rounds=2, vocabulary_size=8000, what="test")
    assert order == ["ours", "ours-small", "ours-odd", "ours", "a"] * 2
    assert [run["place"] for run in found["ours-odd"]["beside"]] == [1, 6]
    assert [run["place"] for run in found["a"]["beside"]] == [4, 9]


def test_a_system_that_fails_is_left_out_and_says_why():
    def measure(system, number):
        if system.key == "a" and number == 1:
            raise UserError("no such library")
        return {}

    found = compare([system("ours"), system("a"), system("b")], measure, rounds=3, vocabulary_size=8000, what="test")
    assert found["a"]["failed"] == "no such library"
    assert len(found["a"]["runs"]) == len(found["a"]["beside"]) == 1
    assert len(found["b"]["runs"]) == 3


def test_ours_alone_runs_once_a_round():
    found = compare([system("ours")], lambda system, number: {}, rounds=3, vocabulary_size=8000, what="test")
    assert len(found["ours"]["runs"]) == 3
