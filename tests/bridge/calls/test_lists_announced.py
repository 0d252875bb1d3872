"""What a client is told in the handshake where reloads change lists."""

from __future__ import annotations

import pytest

from mcpbridge.bridge.calls.lists_announced import ListsAnnounced
from tests.bridge.playbook import Stage, bounded


@bounded
@pytest.mark.parametrize("handshake", ["initialize", "server/discover"])
async def test_each_list_that_is_offered_is_said_to_change(handshake: str) -> None:
    """And nothing else becomes different, in no other answer."""
    stage = Stage(shared=True, interceptors=(ListsAnnounced(),))
    stage.enter("A")
    stage.call("A", f'{{"id":7,"method":"{handshake}"}}')
    stage.call("A", '{"id":8,"method":"tools/list"}')
    await stage.play(
        f'child >> {{"id":1,"method":"{handshake}"}}'
        """
        child >> {"id":2,"method":"tools/list"}
        child << {"id":1,"result":{"capabilities":{"tools":{"listChanged":false},"prompts":{},"logging":{}},"x":1.0}}
        child << {"id":2,"result":{"capabilities":{"tools":{}}}}
        A << {"id":7,"result":{"capabilities":{"tools":{"listChanged":true},"prompts":{"listChanged":true},"logging":{}},"x":1.0}}
        A << {"id":8,"result":{"capabilities":{"tools":{}}}}
        """  # noqa: E501 - a step is one line
    )


@bounded
async def test_an_answer_without_capabilities_passes_as_it_is() -> None:
    """So does an error: what is wrong with it is for others to say."""
    stage = Stage(shared=True, interceptors=(ListsAnnounced(),))
    stage.enter("A")
    for number in (1, 2, 3):
        stage.call("A", f'{{"id":{number},"method":"initialize"}}')
    await stage.play(
        """
        child >> {"id":1,"method":"initialize"}
        child >> {"id":2,"method":"initialize"}
        child >> {"id":3,"method":"initialize"}
        child << {"id":1,"result":{"capabilities":[]}}
        child << {"id":2,"result":{}}
        child << {"id":3,"error":{"code":1,"message":"no"}}
        A << {"id":1,"result":{"capabilities":[]}}
        A << {"id":2,"result":{}}
        A << {"id":3,"error":{"code":1,"message":"no"}}
        """
    )
