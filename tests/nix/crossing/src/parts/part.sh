#!/bin/bash-static
echo part
