"""The Trainer mixin and its subclasses, loss terms, schedules, freezing, router statistics."""
