"""The watts, the heat and the places of power domains: which cap, how many workers, where?"""
