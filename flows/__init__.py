"""The flows: each body reads like its diagram."""

from infra.base.interrupts import handle_while_importing

handle_while_importing(__name__, script="sknet")
