"""Failed logins: the more there were, the longer the next attempt has to wait."""

import math
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from django.db.models import F
from django.utils import timezone

from thawloop.core.errors import Refused
from thawloop.core.models import LoginFailure

FORGOTTEN_AFTER = timedelta(hours=1)  # failures are forgotten after this time without another


class TooManyFailures(Refused):
    """Somebody failed too often and has to wait."""

    status_code = 429

    def __init__(self, seconds: float) -> None:
        self.wait = math.ceil(seconds)  # DRF and our middleware make Retry-After of it
        super().__init__(f"There were too many failed attempts: wait {self.wait} s, then try again.")


@dataclass(frozen=True)
class _Rule:
    """After `free` failures each further one doubles the pause, from one second to `longest`."""

    free: int
    longest: float

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        return 0.0 if failures < self.free else min(self.longest, 2.0 ** min(failures - self.free, 30))


# A name alone is slowed down late and a little: strangers must not be able to lock its owner out.
_PAIR, _ADDRESS, _NAME = _Rule(5, 900), _Rule(20, 900), _Rule(50, 30)


def check_may_try(name: str, address: str) -> None:
    """Refuse an attempt that comes too soon after failed ones.

    Raises:
        TooManyFailures: saying how long to wait. The attempt is neither looked at nor counted.
    """
    rules = _rules(name, address)
    now = timezone.now()
    rows = LoginFailure.objects.filter(pk__in=rules, last__gt=now - FORGOTTEN_AFTER)
    waits = [rules[row.subject].pause(row.failures) - (now - row.last).total_seconds() for row in rows]
    if (wait := max(waits, default=0.0)) > 0:
        raise TooManyFailures(wait)


def record_failure(name: str, address: str) -> None:
    """Count a failed attempt for the name, the address and both together."""
    now = timezone.now()
    LoginFailure.objects.filter(last__lt=now - FORGOTTEN_AFTER).delete()
    for subject in _rules(name, address):
        if not LoginFailure.objects.filter(pk=subject).update(failures=F("failures") + 1, last=now):
            LoginFailure.objects.bulk_create(
                [LoginFailure(subject=subject, failures=1, last=now)],
                update_conflicts=True,
                unique_fields=["subject"],
                update_fields=["last"],
            )


def forget_failures(name: str, address: str) -> None:
    """Forget a name's failures after a success. The address's stay: one known password must not buy endless guesses."""
    LoginFailure.objects.filter(pk__in=[_subject("pair", name, address), _subject("name", name)]).delete()


def _rules(name: str, address: str) -> dict[str, _Rule]:
    return {
        _subject("pair", name, address): _PAIR,
        _subject("address", address): _ADDRESS,
        _subject("name", name): _NAME,
    }


def _subject(kind: str, *parts: str) -> str:
    return sha256("\0".join([kind, *(part.casefold() for part in parts)]).encode()).hexdigest()
