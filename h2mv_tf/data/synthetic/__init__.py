"""A synthetic world, as a store in the published layout.

A planet with continents, climate zones, seasons and storms. Its hidden truth is the
project's own physics with coefficients that are known functions of static inputs,
weather and state; its observations are the truth with noise, in the cadence and with
the gaps of the real products. Everything follows from a seed; nothing is downloaded.
"""

from h2mv_tf.data.synthetic.world import synthesize

__all__ = ["synthesize"]
