"""Prompt templates: the words around a problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dopr.errors import ConfigError, suggest

if TYPE_CHECKING:
    from dopr.tasks.problems import Problem

Messages = list[dict[str, str]]

#: The named templates. Each asks for the form that one of the named rewards reads.
TEMPLATES = {
    "plain": "{prompt}",
    "number": "{prompt}\nGive only the final number.",
    "boxed": "{prompt}\nReason step by step, and end with the final answer in \\boxed{}.",
    "choice": '{prompt}\nEnd with "The answer is (X)", where X is the letter of your choice.',
    "tags": "{prompt}\nReason step by step, and end with the final answer between <answer> and </answer>.",
}


def check_template(template: str) -> str:
    """Text of a template given by name, or as text that holds ``{prompt}``.

    Raises:
        ConfigError: it is neither.
    """
    if "{prompt}" in template:
        return template
    if template not in TEMPLATES:
        raise ConfigError(
            f"The template {template!r} is no known name and does not contain {{prompt}}, the place of the problem. "
            f"{suggest(template, TEMPLATES)}"
        )
    return TEMPLATES[template]


def render_prompt(problem: Problem, template: str | None, system: str | None, chat: bool) -> str | Messages:
    """The prompt that the policy sees: text, or with ``chat`` the messages ``[system?, user]``.

    Only the token ``{prompt}`` is replaced; other braces in the template or in the problem mean nothing. A problem that
    came as messages keeps them, the template going around the last one.

    Raises:
        ConfigError: unknown template; a system prompt without chat, or beside the problem's own; a conversation of
            several messages without chat.
    """
    text = "{prompt}" if template is None else check_template(template)
    messages = [{"role": "user", "content": problem.prompt}] if isinstance(problem.prompt, str) else problem.prompt
    messages = [*messages[:-1], {**messages[-1], "content": text.replace("{prompt}", messages[-1]["content"])}]
    if not chat:
        if system is not None:
            raise ConfigError("A system prompt needs chat messages. Use chat, or put its words into the template.")
        if len(messages) != 1 or messages[0]["role"] != "user":
            raise ConfigError(
                f"The prompt of problem {problem.id!r} is a conversation of {len(messages)} messages; as plain text it "
                "would lose who says what. Use chat."
            )
        return messages[0]["content"]
    if system is None:
        return messages
    if messages[0]["role"] == "system":
        raise ConfigError(f"Problem {problem.id!r} has a system prompt of its own. Leave out the one given.")
    return [{"role": "system", "content": system}, *messages]
