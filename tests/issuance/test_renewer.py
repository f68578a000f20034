"""When a certificate is got, kept and renewed, to the second (T216, T217)."""

from __future__ import annotations

import os

from slapenir.errors import PkiError
from slapenir.events import CertificateLoaded, CertificateRenewed, InternalError, RenewalFailed
from slapenir.issuance.provider import IssuanceError
from slapenir.pki.held import Held
from tests.issuance.renewer_rig import BEGIN, DAY, RenewerTestCase, held


class FirstTests(RenewerTestCase):
    def test_without_one_it_is_obtained_and_kept(self) -> None:
        """The directory is made for nobody else; the key is 0600; it is told once."""
        self.successResultOf(self.renewer.start())
        current = self.renewer.current
        assert current is not None
        self.assertEqual(self.told, [current])
        self.assertEqual(self.events, [CertificateLoaded("managed", BEGIN + DAY, True)])
        self.assertEqual(Held.load(self.directory).chain, current.chain)
        self.assertEqual(os.stat(self.directory).st_mode & 0o777, 0o700)
        self.assertEqual(os.stat(os.path.join(self.directory, "key.pem")).st_mode & 0o777, 0o600)

    def test_one_that_is_kept_is_used(self) -> None:
        """The CA is not asked at a restart."""
        one = held(BEGIN - 3600)
        self.keep(one)
        self.renewer.start()
        self.assertEqual([found.chain for found in self.told], [one.chain])
        self.assertEqual(self.ca.asked, [])
        self.assertEqual(self.events, [CertificateLoaded("managed", one.not_after, True)])

    def test_one_that_has_ended_is_replaced_and_never_used(self) -> None:
        """T217: the provider is given the old one, and nobody else is."""
        old = held(BEGIN - 2 * DAY)
        self.keep(old)
        self.failing()
        self.renewer.start()
        self.assertIsNone(self.renewer.current)
        self.assertEqual(self.told, [])
        self.assertEqual(self.of(RenewalFailed)[0].not_after, old.not_after)
        self.ca.broken = None
        self.run_for(3600)
        self.assertEqual([before.chain for _, before in self.ca.asked if before][-1], old.chain)
        assert self.renewer.current is not None
        self.assertEqual(self.renewer.current.not_before, self.ca.asked[-1][0] // 1)

    def test_what_is_kept_is_broken_or_does_not_match(self) -> None:
        """Another is obtained; while none can be had, the reason says what was wrong."""
        self.keep(held(BEGIN - 3600))
        key = os.path.join(self.directory, "key.pem")
        chain = os.path.join(self.directory, "chain.pem")
        good = {path: open(path, "rb").read() for path in (key, chain)}
        other = held(BEGIN)
        spoilt = {
            "key.pem is not the key of chain.pem": (chain, _pem(other)),
            "chain.pem is not a certificate": (chain, b"-----BEGIN CERTIFICATE-----\nAAAA\n"),
            "key.pem is not a private key": (key, good[key][:60]),
            "chain.pem is not a certificate in PEM": (chain, b"\n"),
        }
        for words, (path, data) in spoilt.items():
            with open(path, "wb") as file:
                file.write(data)
            self.failing("no token")
            renewer = self.make()
            renewer.start()
            self.assertIsNone(renewer.current)
            self.assertRegex(self.of(RenewalFailed)[-1].error, f"{words}.*; no token")
            self.ca.broken = None
            self.successResultOf(renewer.renew_now())
            assert renewer.current is not None
            self.assertEqual(Held.load(self.directory).chain, renewer.current.chain)
            renewer.stop()
            for name, whole in good.items():
                with open(name, "wb") as file:
                    file.write(whole)

    def test_a_key_that_others_can_read_is_not_used_t239(self) -> None:
        """T239: it is replaced by another, and the reason names the mode."""
        self.keep(held(BEGIN - 3600))
        os.chmod(os.path.join(self.directory, "key.pem"), 0o644)
        self.failing()
        self.renewer.start()
        self.assertEqual(self.told, [])
        self.assertIn("chmod 600", self.of(RenewalFailed)[0].error)

    def test_one_that_does_not_suit_is_used_and_renewed_at_once(self) -> None:
        """Names that were added to the configuration do not wait two thirds of a life."""
        one = held(BEGIN - 3600)
        self.keep(one)
        renewer = self.make(suits=lambda found: found.chain != one.chain)
        renewer.start()
        self.assertEqual(len(self.told), 2)
        self.assertEqual(self.ca.asked[0][1] is None, False)


class RenewalTests(RenewerTestCase):
    def test_at_two_thirds_of_life(self) -> None:
        """Without jitter exactly then, with all of it a twentieth of the life earlier."""
        for random, part in ((0.0, 2 / 3), (1.0, 2 / 3 - 0.05)):
            self.random = random
            renewer = self.make()
            self.ca.asked.clear()
            self.successResultOf(renewer.renew_now())
            self.reactor.advance(DAY * part - 1)
            self.assertEqual(len(self.ca.asked), 1)
            self.reactor.advance(2)
            self.assertEqual(len(self.ca.asked), 2)
            renewer.stop()

    def test_each_renewal_is_told_and_kept(self) -> None:
        """Ten days: sixteen certificates, each given the one before; one event for each."""
        self.renewer.start()
        self.run_for(10 * DAY, 30)
        self.assertEqual(len(self.told), 16)
        self.assertEqual(len(self.of(CertificateLoaded)), 1)
        self.assertEqual(
            [event.not_after for event in self.of(CertificateRenewed)],
            [one.not_after for one in self.told[1:]],
        )
        given = [before for _, before in self.ca.asked]
        self.assertEqual(given, [None, *self.told[:-1]])
        self.assertEqual(Held.load(self.directory).chain, self.told[-1].chain)

    def test_a_ca_with_the_wrong_clock_is_not_asked_without_end(self) -> None:
        """Certificates that are past two thirds when they come are renewed after a while."""
        self.offset -= 0.9 * DAY
        self.ca._now = lambda: self.now() - 0.9 * DAY
        self.renewer.start()
        self.run_for(600)
        self.assertLessEqual(len(self.ca.asked), 11)

    def test_renew_now(self) -> None:
        """It is renewed once, also when asked twice; the timer begins anew."""
        self.renewer.start()
        self.run_for(DAY / 2)
        self.ca.slow = True
        both = [self.renewer.renew_now(), self.renewer.renew_now()]
        self.assertEqual(len(self.ca.asked), 2)
        self.assertNoResult(both[0])
        self.ca.open.pop().callback(held(self.now()))
        for one in both:
            self.successResultOf(one)
        self.run_for(DAY / 2)
        self.assertEqual(len(self.ca.asked), 2)

    def test_a_slow_ca_is_asked_once(self) -> None:
        """No second question while one is open."""
        self.renewer.start()
        self.ca.slow = True
        self.run_for(3 * DAY, 60)
        self.assertEqual(len(self.ca.asked), 2)

    def test_a_subscriber_that_fails(self) -> None:
        """The others are told, the timer goes on, and it is an event."""

        def fail(_: Held) -> None:
            raise KeyError

        self.renewer._subscribers.insert(0, fail)
        self.renewer.start()
        self.assertEqual(len(self.told), 1)
        self.assertEqual(self.of(InternalError), [InternalError("issuance", "KeyError")])
        self.flushLoggedErrors(KeyError)
        self.run_for(DAY, 60)
        self.assertEqual(len(self.told), 2)
        self.flushLoggedErrors(KeyError)

    def test_publishing_fails(self) -> None:
        """It is logged, and the certificate is renewed all the same."""
        broken = self.make()

        def fail(_: object) -> None:
            raise KeyError

        broken._publish = fail
        broken.start()
        self.run_for(3 * DAY, 60)
        self.assertGreater(len(self.ca.asked), 3)
        self.assertTrue(self.flushLoggedErrors(KeyError))


class FailureTests(RenewerTestCase):
    def waits(self) -> list[float]:
        """Return the announced waits, after seeing that they were kept."""
        times = [time for time, _ in self.ca.asked]
        found = [event.retry_seconds for event in self.of(RenewalFailed)]
        for before, after, wait in zip(
            times[-len(found) :], times[1 - len(found) :], found, strict=False
        ):
            self.assertAlmostEqual(after - before, wait, delta=0.01)
        return found

    def test_fifty_failures_in_a_row(self) -> None:
        """The waits double from a minute to an hour, for ever; then it is renewed."""
        self.ca.life = 30 * DAY
        self.renewer.start()
        self.failing()
        self.reactor.advance(20 * DAY)
        while len(self.of(RenewalFailed)) < 50:
            self.reactor.advance(self.renewer._timing.look_in())
        waits = self.waits()
        self.assertEqual(waits[:8], [60, 120, 240, 480, 960, 1920, 3600, 3600])
        self.assertEqual(set(waits[8:]), {3600.0})
        self.assertEqual(len(self.told), 1)
        self.ca.broken = None
        self.reactor.advance(60)
        self.run_for(3600, 60)
        self.assertEqual(len(self.told), 2)
        self.failing()
        self.successResultOf(self.renewer.renew_now())
        self.assertEqual(self.of(RenewalFailed)[-1].retry_seconds, 60)

    def test_the_waits_are_random_and_fit_the_life(self) -> None:
        """With a life of an hour from 36 seconds to three minutes, as much as half off."""
        self.random = 1.0
        self.ca.life = 3600
        self.renewer.start()
        self.failing()
        self.run_for(3000, 0.25)
        self.assertEqual([round(wait) for wait in self.waits()[:4]], [18, 36, 72, 90])

    def test_without_a_certificate_it_is_tried_soon(self) -> None:
        """From five seconds to five minutes: everything waits for it."""
        self.failing()
        self.successResultOf(self.renewer.start())
        self.run_for(1500, 0.25)
        self.assertEqual(self.waits()[:8], [5, 10, 20, 40, 80, 160, 300, 300])
        self.assertEqual({event.not_after for event in self.of(RenewalFailed)}, {0.0})

    def test_it_ends_while_the_ca_is_down(self) -> None:
        """T217: the old one stays in use past its end, as nothing better is there; then not."""
        self.renewer.start()
        self.failing()
        self.run_for(2 * DAY, 60)
        self.assertEqual(len(self.told), 1)
        self.ca.broken = None
        self.run_for(3600, 60)
        self.assertEqual(len(self.told), 2)

    def test_the_phrase_and_the_end_are_told(self) -> None:
        """The provider's own words, and when the one in use ends."""
        self.renewer.start()
        self.failing("ca.example.test:9000 cannot be reached")
        self.renewer.renew_now()
        self.assertEqual(
            self.of(RenewalFailed),
            [RenewalFailed("managed", "ca.example.test:9000 cannot be reached", 60, BEGIN + DAY)],
        )

    def test_a_bug_in_the_provider(self) -> None:
        """Its words are not told, for they may hold anything; it is tried again."""
        self.renewer.start()
        self.ca.broken = KeyError("a token")
        self.renewer.renew_now()
        self.assertEqual(self.of(RenewalFailed)[0].error, "an unexpected KeyError")
        self.assertEqual(self.of(InternalError), [InternalError("issuance", "KeyError")])
        self.ca.broken = None
        self.run_for(120)
        self.assertEqual(len(self.told), 2)

    def test_it_cannot_be_written(self) -> None:
        """It is used; only the writing is tried again, for a token may be used up."""
        os.makedirs(self.directory, 0o700)
        os.mkdir(os.path.join(self.directory, "chain.pem"))
        self.renewer.start()
        self.assertEqual(len(self.told), 1)
        self.assertIn("chain.pem", self.of(RenewalFailed)[-1].error)
        self.run_for(3600)
        self.assertEqual(len(self.ca.asked), 1)
        os.rmdir(os.path.join(self.directory, "chain.pem"))
        self.run_for(3600)
        self.assertEqual(len(self.told), 1)
        self.assertEqual(Held.load(self.directory).chain, self.told[0].chain)

    def test_it_can_never_be_written(self) -> None:
        """It is renewed all the same when it is old."""
        with open(os.path.dirname(self.directory) or ".", "a") as file:
            file.write("a file where the directory is to be")
        self.renewer.start()
        self.assertIn("cannot be made", self.of(RenewalFailed)[-1].error)
        self.run_for(DAY, 60)
        self.assertEqual(len(self.told), 2)


class ClockTests(RenewerTestCase):
    """T216: somebody sets the wall clock."""

    def test_forwards(self) -> None:
        """By a day or 400: it is renewed within a minute."""
        for jump in (DAY, 400 * DAY):
            renewer = self.make()
            self.successResultOf(renewer.renew_now())
            asked = len(self.ca.asked)
            self.run_for(3600)
            self.offset += jump
            self.run_for(60)
            self.assertEqual(len(self.ca.asked), asked + 1)
            renewer.stop()

    def test_back(self) -> None:
        """By an hour or 400 days: it is renewed when that was planned, by the time that passed."""
        for jump in (3600, 400 * DAY):
            renewer = self.make()
            self.successResultOf(renewer.renew_now())
            asked = len(self.ca.asked)
            self.run_for(3600)
            self.offset -= jump
            self.run_for(DAY * 2 / 3 - 3605)
            self.assertEqual(len(self.ca.asked), asked)
            self.run_for(10)
            self.assertEqual(len(self.ca.asked), asked + 1)
            renewer.stop()

    def test_back_and_the_ca_has_the_right_time(self) -> None:
        """With a clock 400 days behind, each certificate is renewed by the time that passed."""
        self.ca._now = lambda: self.now() + 400 * DAY
        self.renewer.start()
        self.run_for(DAY * 2 / 3 + 60, 60)
        self.assertEqual(len(self.told), 2)

    def test_forth_and_back(self) -> None:
        """A clock that comes right again costs a renewal, and no more."""
        self.renewer.start()
        self.offset += 400 * DAY
        self.ca._now = lambda: self.now() - 400 * DAY
        self.failing("the certificate that came has expired; compare the clocks")
        self.run_for(300)
        self.offset -= 400 * DAY
        self.ca._now, self.ca.broken = self.now, None
        self.run_for(3600)
        self.assertEqual(len(self.told), 2)
        self.run_for(DAY / 2, 60)
        self.assertEqual(len(self.told), 2)

    def test_while_it_fails(self) -> None:
        """A clock that is set does not make the questions to a CA that is down more frequent."""
        self.renewer.start()
        self.failing()
        self.renewer.renew_now()
        self.offset += 400 * DAY
        asked = len(self.ca.asked)
        self.run_for(59)
        self.assertEqual(len(self.ca.asked), asked)
        self.run_for(2)
        self.assertEqual(len(self.ca.asked), asked + 1)


class StopTests(RenewerTestCase):
    def test_no_timer_is_left(self) -> None:
        """Nothing runs after it, and nothing is asked."""
        self.renewer.start()
        self.successResultOf(self.renewer.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.successResultOf(self.renewer.renew_now())
        self.assertEqual(len(self.ca.asked), 1)
        self.successResultOf(self.renewer.stop())

    def test_a_question_is_cancelled(self) -> None:
        """It is no failure."""
        self.ca.slow = True
        started = self.renewer.start()
        self.successResultOf(self.renewer.stop())
        self.successResultOf(started)
        self.assertEqual(self.ca.cancelled, 1)
        self.assertEqual(self.events, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_what_is_being_written_is_written(self) -> None:
        """A certificate that cost a token is kept for the next start; nobody is told."""
        self.ca.slow = True
        self.renewer.start()
        self.reactor.threads.later = True
        one = held(self.now())
        self.ca.open.pop().callback(one)
        stopped = self.renewer.stop()
        self.assertNoResult(stopped)
        self.reactor.threads.kept.pop()()
        self.successResultOf(stopped)
        self.assertEqual(Held.load(self.directory).chain, one.chain)
        self.assertEqual(self.told, [])

    def test_before_it_began(self) -> None:
        """Nothing is there to stop."""
        self.successResultOf(self.renewer.stop())

    def test_errors_of_the_room_are_told_apart(self) -> None:
        """Both kinds of phrase are ours."""
        for error in (IssuanceError("one"), PkiError("two")):
            self.ca.broken = error
            self.successResultOf(self.renewer.renew_now())
        self.assertEqual([event.error for event in self.of(RenewalFailed)], ["one", "two"])


def _pem(one: Held) -> bytes:
    from slapenir.pki.held import to_pem

    return to_pem(one.chain)
