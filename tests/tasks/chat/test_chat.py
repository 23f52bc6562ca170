"""`workbench.chat`: checking, streaming, stopping, timing and recording, on the stub engine."""

from __future__ import annotations

import json
import math

import pytest

import workbench
from workbench.engines.base import Message, Usage
from workbench.errors import ProviderError, UnknownModel, UserInputError
from workbench.tasks.chat import Conversation, Reply
from workbench.tasks.record import Record, observe

pytestmark = pytest.mark.usefixtures("stub_models", "own_pool")


def test_a_prompt_is_answered():
    reply = workbench.chat("abc")
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish_reason, reply.model) == ("cba", "stop", "stub-chat")
    assert reply.usage == Usage(1, 1)


def test_a_stream_is_the_same_reply_in_pieces(write_model):
    model = write_model("words", options={"reply": "Xin chào bạn"})
    stream = workbench.chat("hi", model=model, stream=True)
    assert [delta.text for delta in stream if delta.text] == ["Xin", " chào", " bạn"]
    assert stream.result.text == "Xin chào bạn" == workbench.chat("hi", model=model).text


def test_a_stop_keeps_what_there_is(write_model, own_pool):
    model = write_model("words", options={"reply": "one two three four"})
    stream = workbench.chat("hi", model=model, stream=True)
    for delta in stream:
        if delta.text == " two":
            stream.stop()
    assert stream.result.text == "one two"
    assert stream.result.finish_reason == "cancelled"
    assert own_pool.loaded()[0].users == 0


def test_a_closed_stream_frees_the_model(own_pool):
    stream = workbench.chat("hi there", stream=True)
    next(iter(stream))
    assert own_pool.loaded()[0].users == 1
    stream.close()
    assert own_pool.loaded()[0].users == 0


def test_the_length_is_kept(write_model):
    model = write_model("words", options={"reply": "one two three four"})
    reply = workbench.chat("hi", model=model, max_tokens=2)
    assert (reply.text, reply.finish_reason) == ("one two", "length")


WRONG = [
    ({"prompt": ""}, "prompt is empty"),
    ({"prompt": " \n"}, "prompt is empty"),
    ({"prompt": []}, "does not end with a message of the user"),
    ({"prompt": [Message("assistant", "x")]}, "does not end with a message of the user"),
    ({"prompt": [Message("robot", "x")]}, "has the role 'robot'"),  # type: ignore[arg-type]
    ({"prompt": [{"role": "user", "content": "x"}]}, "Message 1 .* is not a Message"),
    ({"prompt": [Message("user", None)]}, "is not a Message with text"),  # type: ignore[arg-type]
    ({"prompt": "x\ud800"}, "half of a surrogate pair"),
    ({"prompt": [Message("system", "a"), Message("user", "b")], "system": "c"}, "gives another"),
    ({"max_tokens": 0}, "max_tokens is 0"),
    ({"temperature": -0.1}, "temperature is -0.1"),
    ({"temperature": math.nan}, "temperature is nan"),
    ({"top_p": 0.0}, "top_p is 0.0"),
    ({"top_p": 1.1}, "top_p is 1.1"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 2**32}, "seed is 4294967296"),
    ({"stop": [""]}, "stop string is empty"),
    ({"grammar": "root ::= 'x'", "json_schema": {}}, "Both grammar and json_schema"),
    ({"reference": " "}, "reference is empty"),
]


@pytest.mark.parametrize(("request_", "message"), WRONG, ids=[message for _, message in WRONG])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_said_before_anything_is_loaded(request_, message, stream, own_pool):
    with pytest.raises(UserInputError, match=message) as failure:
        workbench.chat(**{"prompt": "hi", **request_}, stream=stream)
    assert failure.value.remedy
    assert own_pool.log() == []


def test_a_model_of_another_task(stub_models):
    with pytest.raises(UnknownModel, match="does speech, not chat"):
        workbench.chat("hi", model=stub_models["speech"])


def test_the_record_can_repeat_the_request():
    reply = workbench.chat("hi", system="Be brief.", stop="END", temperature=0.5, seed=7)
    request = reply.record.request
    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]
    assert (request["stop"], request["temperature"], request["seed"]) == (("END",), 0.5, 7)
    assert (reply.record.task, reply.record.model) == ("chat", "stub-chat")
    json.loads(reply.record.model_dump_json())


def test_only_a_conversation_reuses_what_the_engine_holds():
    alone = workbench.chat("hi").record.request
    turns = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    assert alone["reuse_prefix"] is False
    assert workbench.chat(turns).record.request["reuse_prefix"] is True


def test_phases_add_up_and_timings_are_metrics():
    reply = workbench.chat("one two three")
    phases = reply.record.phase_seconds
    assert set(phases) == {"load", "prompt", "decode", "total"}
    parts = phases["load"] + phases["prompt"] + phases["decode"]
    assert parts == pytest.approx(reply.timings.total_seconds)
    assert 0 < reply.timings.first_token_seconds <= reply.timings.total_seconds
    assert reply.record.metrics["completion_tokens"] == 3
    assert reply.record.metrics["total_seconds"] == reply.timings.total_seconds


def test_one_token_has_no_speed():
    assert workbench.chat("hi").timings.tokens_per_second is None


def test_a_reference_is_scored(write_model):
    model = write_model("words", options={"reply": "The capital is Hà Nội."})
    quality = workbench.chat("?", model=model, reference="hà nội").record.quality
    assert quality == {"exact_match": 0.0, "contains": 1.0}
    assert workbench.chat("?", model=model).record.quality == {}


def test_a_failure_is_recorded_and_raised(write_model, own_pool):
    model = write_model("fails", options={"fail": "out of order"})
    records: list[Record] = []
    with observe(records.append), pytest.raises(ProviderError, match="out of order"):
        workbench.chat("hi", model=model)
    assert [record.error for record in records] == ["ProviderError: out of order Stop failing."]
    assert own_pool.loaded()[0].users == 0


def test_a_stream_is_recorded_where_it_was_asked_for():
    records: list[Record] = []
    with observe(records.append):
        stream = workbench.chat("hi", stream=True)
    assert stream.result.record is records[0]


def test_to_dict_has_the_keys_of_the_interface():
    reply = json.loads(json.dumps(workbench.chat("hi there").to_dict()))
    assert {"text", "model", "usage", "timings"} <= set(reply)
    assert set(reply["usage"]) == {"prompt_tokens", "completion_tokens"}
    assert {"first_token_seconds", "total_seconds", "tokens_per_second"} <= set(reply["timings"])


def test_html_of_a_model_is_shown_not_run(write_model):
    model = write_model("evil", options={"reply": "<script>alert(1)</script>"})
    shown = workbench.chat("hi", model=model)._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


class TestConversation:
    def test_it_remembers(self, write_model):
        model = write_model("words", options={"reply": "Chào!"})
        conversation = Conversation(system="Be brief.", model=model)
        conversation.say("Xin chào")
        before = conversation.messages
        reply = conversation.say("Again")
        assert [(m.role, m.content) for m in before] == [
            ("user", "Xin chào"),
            ("assistant", "Chào!"),
        ]
        assert [m["role"] for m in reply.record.request["messages"]] == [
            "system",
            "user",
            "assistant",
            "user",
        ]
        assert len(conversation.messages) == 4

    def test_a_stopped_answer_is_kept(self, write_model):
        model = write_model("words", options={"reply": "one two three"})
        conversation = Conversation(model=model)
        stream = conversation.say("count", stream=True)
        for _ in stream:
            stream.stop()
        assert conversation.messages[-1] == Message("assistant", "one")
        assert stream.result.finish_reason == "cancelled"

    def test_a_failed_answer_leaves_it_as_it_was(self, write_model):
        conversation = Conversation(model=write_model("fails", options={"fail": "out of order"}))
        with pytest.raises(ProviderError):
            conversation.say("hi")
        assert conversation.messages == ()
