"""Getting, renewing and giving certificates: enrolment, ACME and step-ca."""
