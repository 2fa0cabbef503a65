"""What can't be delivered any more before a process ends: it goes into the spool."""

from __future__ import annotations

import typing as t

from .answers import Answer, Meaning
from .queue import contents

if t.TYPE_CHECKING:
    from .batches import Batch
    from .delivery import Delivery
    from .failures import Dropped
    from .pipeline import Pipeline
    from .queue import QueuedEnvelope

#: Seconds that the end waits for what an answer that came at the end decides to be
#: written into the spool.
ANSWERED_TIMEOUT = 2.0


def spool_rest(
    pipeline: Pipeline, delivery: Delivery, reason: str, *, closes: bool = False
) -> None:
    """Spool what is in a pipeline; what the spool doesn't take is dropped.

    :param reason: why it is in the spool, and has got no answer.
    :param closes: whether nothing comes any more.
    """
    unanswered = Answer(Meaning.AMBIGUOUS, f"no answer before {reason}")
    dropped: list[Dropped] = []

    with delivery.ledger.transfer():
        in_flight, built, envelopes = _abandon(pipeline, delivery, closes=closes)

        for batch in in_flight:
            attempt = delivery.apply_answer(batch, unanswered)
            dropped += attempt.dropped
            built = attempt.again + built

        for batch in built:
            dropped += delivery.spool_batch(batch, reason)

        dropped += delivery.spool_envelopes(contents(envelopes), reason)

    delivery.report_drops(dropped)


def _abandon(
    pipeline: Pipeline, delivery: Delivery, *, closes: bool
) -> tuple[list[Batch], list[Batch], list[QueuedEnvelope]]:
    """Take everything away from the workers, and let the ledger have all of it."""
    places, monitor = pipeline.places, pipeline.monitor

    with monitor.lock:
        # What an answer sends back comes with the rest.
        monitor.await_progress(lambda: not places.answered, ANSWERED_TIMEOUT)
        records = pipeline.take_overflow() + places.unrecorded
        in_flight, built, envelopes = places.abandon()
        pipeline.is_closed |= closes
        monitor.work_available.notify_all()

    delivery.ledger.record(records)
    return in_flight, built, envelopes
